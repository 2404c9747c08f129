"""The formats that are read as documentation: a table of `docs/api/media.md`, written from the allow-lists.

python -m tools.media_docs --check   # exits 1 where the file has drifted
python -m tools.media_docs --write
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from server.media.decode.formats import CODECS, CONTAINERS, IMAGES

BEGIN = "<!-- formats:begin -->"
END = "<!-- formats:end -->"
DOCUMENT = Path(__file__).parent.parent / "docs" / "api" / "media.md"


def table() -> str:
    """The Markdown table, without the markers."""
    rows = [
        *(f"| image | {name} | {note} |" for name, note in IMAGES.items()),
        *(f"| container | {name} | {_list(names)} |" for name, names in CONTAINERS.items()),
        *(f"| codec | {name} | {_list(names)} |" for name, names in CODECS.items()),
    ]
    return "\n".join(["| | read | FFmpeg's names, or what to know |", "| --- | --- | --- |", *rows])


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


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
    parser = argparse.ArgumentParser(prog="python -m tools.media_docs", description="Documentation of media formats.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="exit with 1 where the file has drifted")
    action.add_argument("--write", action="store_true", help="write the file")
    arguments = parser.parse_args()
    current = DOCUMENT.read_text("utf-8")
    text = with_table(current)
    if arguments.write:
        DOCUMENT.write_text(text, "utf-8")
    elif text != current:
        print(f"{DOCUMENT.name} differs from server/media/decode/formats.py: run `python -m tools.media_docs --write`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
