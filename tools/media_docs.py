"""The formats that are read as documentation: a table of `docs/api/media.md`, written from the allow-lists.

python -m tools.media_docs --check   # exits 1 where the file has drifted
python -m tools.media_docs --write
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from server.media.decode.formats import CODECS, CONTAINERS, IMAGES
from tools.generated import ROOT, main, renewed

DOCUMENT = ROOT / "docs" / "api" / "media.md"


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


def documents() -> dict[Path, str]:
    """What the file should say."""
    return {DOCUMENT: renewed(DOCUMENT.read_text("utf-8"), "formats", table())}


if __name__ == "__main__":
    sys.exit(main("tools.media_docs", "Documentation of media formats.", documents))
