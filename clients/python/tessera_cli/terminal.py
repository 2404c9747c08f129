"""What is shown while a person waits, on stderr, and how answers get onto the terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.status import Status

from tessera_client.uploads import OnUpload


def stderr() -> Console:
    """A console on stderr; plain where that is no terminal."""
    return Console(stderr=True, highlight=False)


def write(text: str) -> None:
    """Write a piece of an answer to stdout at once.

    On a terminal, control characters other than tab and line break are left out: an answer must not move the cursor or
    set the title.
    """
    if sys.stdout.isatty():
        text = "".join(character for character in text if character.isprintable() or character in "\n\t")
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def uploading(console: Console) -> Iterator[OnUpload]:
    """A bar for every upload; nothing where stderr is no terminal."""
    columns = (TextColumn("uploading {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks = {}

        def told(path: Path, done_bytes: int, size_bytes: int) -> None:
            if path not in tasks:
                tasks[path] = progress.add_task(path.name, total=size_bytes)
            progress.update(tasks[path], completed=done_bytes)

        yield told


def waiting(console: Console, text: str) -> Status:
    """A spinner with a text, to be entered; its `update` changes the text. Nothing where stderr is no terminal."""
    return console.status(text, spinner="dots")
