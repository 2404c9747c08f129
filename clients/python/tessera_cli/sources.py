"""Images and videos as they are named on the command line."""

import sys
from pathlib import Path

from tessera_cli.connection import UsageError
from tessera_client.parts import MediaError, Part, is_url, media_item


def source_of(name: str) -> Part | Path:
    """What stands behind a name on the command line: a URL's part, a file's path, or the part of stdin's bytes."""
    try:
        if name == "-":
            return media_item(sys.stdin.buffer.read())
        if is_url(name):
            return media_item(name)
    except MediaError as error:
        raise UsageError(str(error)) from error
    path = Path(name).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no file {name!r}")
    return path
