"""The error codes as documentation: the table of `docs/errors.md`, written from `server/core/error_codes.py`.

python -m tools.error_docs --check   # exits 1 where the file has drifted
python -m tools.error_docs --write
"""

import argparse
import sys
from pathlib import Path

from server.core.error_codes import CODES

BEGIN = "<!-- codes:begin -->"
END = "<!-- codes:end -->"
DOCUMENT = Path(__file__).parent.parent / "docs" / "errors.md"


def table() -> str:
    """The Markdown table, without the markers."""
    rows = [f"| `{code}` | {status} | {meaning} |" for code, (status, meaning) in CODES.items()]
    return "\n".join(["| code | status | meaning |", "| --- | --- | --- |", *rows])


def with_table(text: str) -> str:
    """A document with the table between its markers renewed.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"{DOCUMENT.name} needs one {BEGIN} and one {END} after it")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> int:
    """Check or write the document; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.error_docs", description="Documentation of error codes.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="exit with 1 where the file has drifted")
    action.add_argument("--write", action="store_true", help="write the file")
    arguments = parser.parse_args()
    current = DOCUMENT.read_text("utf-8")
    text = with_table(current)
    if arguments.write:
        DOCUMENT.write_text(text, "utf-8")
    elif text != current:
        print(f"{DOCUMENT.name} differs from server/core/error_codes.py: run `python -m tools.error_docs --write`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
