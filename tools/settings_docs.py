"""The settings as documentation: `.env.example` and `docs/settings.md`, written from their declarations.

python -m tools.settings_docs --check   # exits 1 where a file has drifted
python -m tools.settings_docs --write
"""

import sys
from pathlib import Path

from pydantic import SecretStr

from server.core.settings import Declaration, declarations
from tools.generated import ROOT, main, renewed

_ENV_HEADER = "# All settings and their defaults; written by `python -m tools.settings_docs --write`.\n"


def env_example() -> str:
    """The text of `.env.example`: each setting commented out, with its default."""
    blocks = [f"# {declared.description}\n#{declared.variable}={_default(declared)}\n" for declared in declarations()]
    return "\n".join([_ENV_HEADER, *blocks])


def settings_table() -> str:
    """The table of `docs/settings.md`, without the markers."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for declared in declarations():
        default = _default(declared)
        shown = f"`{default}`" if default else "—"
        lines.append(f"| `{declared.variable}` | {shown} | {declared.description.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """A page with the table renewed, as `renewed`."""
    return renewed(page, "settings", settings_table())


def documents(root: Path) -> dict[Path, str]:
    """What the two files should say, by path.

    Args:
        root: the project's folder.
    """
    page = root / "docs" / "settings.md"
    return {root / ".env.example": env_example(), page: with_table(page.read_text("utf-8"))}


def _default(declared: Declaration) -> str:
    value = declared.default
    if value is None or isinstance(value, SecretStr):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main("tools.settings_docs", "Settings documentation.", lambda: documents(ROOT)))
