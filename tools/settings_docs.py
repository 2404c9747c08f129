"""The settings as documentation: `.env.example` and `docs/settings.md`, written from their declarations.

python -m tools.settings_docs --check   # exits 1 where a file has drifted
python -m tools.settings_docs --write
"""

import argparse
import sys
from pathlib import Path

from pydantic import SecretStr

from server.core.settings import Declaration, declarations

BEGIN = "<!-- settings:begin -->"
END = "<!-- settings:end -->"

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
    """The page with the table between its markers renewed.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the page needs one {BEGIN} and one {END} after it")
    return f"{before}{BEGIN}\n{settings_table()}\n{END}{after}"


def documents(root: Path) -> dict[Path, str]:
    """What the two files should say, by path.

    Args:
        root: the project's folder.
    """
    page = root / "docs" / "settings.md"
    return {root / ".env.example": env_example(), page: with_table(page.read_text("utf-8"))}


def main() -> int:
    """Check or write the two files; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.settings_docs", description="Settings documentation.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="exit with 1 where a file has drifted")
    action.add_argument("--write", action="store_true", help="write the files")
    arguments = parser.parse_args()
    drifted = False
    for path, text in documents(Path(__file__).parent.parent).items():
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        if arguments.write:
            path.write_text(text, "utf-8")
        else:
            drifted = True
            print(f"{path.name} does not say what the settings declare: run `python -m tools.settings_docs --write`.")
    return int(drifted)


def _default(declared: Declaration) -> str:
    value = declared.default
    if value is None or isinstance(value, SecretStr):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main())
