"""The error codes as documentation: the table of `docs/errors.md`, written from `server/core/error_codes.py`.

python -m tools.error_docs --check   # exits 1 where the file has drifted
python -m tools.error_docs --write
"""

import sys
from pathlib import Path

from server.core.error_codes import CODES
from tools.generated import ROOT, main, renewed

DOCUMENT = ROOT / "docs" / "errors.md"


def table() -> str:
    """The Markdown table, without the markers."""
    rows = [f"| `{code}` | {status} | {meaning} |" for code, (status, meaning) in CODES.items()]
    return "\n".join(["| code | status | meaning |", "| --- | --- | --- |", *rows])


def with_table(text: str) -> str:
    """A page with the table renewed, as `renewed`."""
    return renewed(text, "codes", table())


def documents() -> dict[Path, str]:
    """What the file should say."""
    return {DOCUMENT: with_table(DOCUMENT.read_text("utf-8"))}


if __name__ == "__main__":
    sys.exit(main("tools.error_docs", "Documentation of error codes.", documents))
