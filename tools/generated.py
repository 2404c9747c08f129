"""What the tools that write documentation share: a table between two markers, and files to check or write."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent


def renewed(page: str, markers: str, table: str) -> str:
    """A page with the table between its markers renewed.

    Args:
        page: its text.
        markers: their name: `NAME` for `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
        table: the Markdown between them.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    begin_marker, end_marker = f"<!-- {markers}:begin -->", f"<!-- {markers}:end -->"
    before, begin, rest = page.partition(begin_marker)
    _, end, after = rest.partition(end_marker)
    if not begin or not end or begin_marker in rest or end_marker in after:
        raise ValueError(f"the page needs one {begin_marker} and one {end_marker} after it")
    return f"{before}{begin}\n{table}\n{end}{after}"


def main(tool: str, description: str, documents: Callable[[], Mapping[Path, str]]) -> int:
    """Check or write documents, as the command line says; returns the exit status.

    Args:
        tool: the module, for what is printed.
        description: of what it writes.
        documents: what each file should say.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {tool}", description=description)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="exit with 1 where a file has drifted")
    action.add_argument("--write", action="store_true", help="write the files")
    arguments = parser.parse_args()
    drifted = False
    for path, text in documents().items():
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        if arguments.write:
            path.write_text(text, "utf-8")
        else:
            drifted = True
            print(f"{path.name} does not say what the code does: run `python -m {tool} --write`.")
    return int(drifted)
