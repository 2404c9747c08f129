"""Opens local files for reading: uploaded files, and `file:` URLs below the one allowed directory.

A `file:` URL is opened one path component at a time, from the directory's own descriptor, without following links, so
that nothing can change between check and use. Opening never blocks, so a pipe cannot stall the server.

Source: RFC 8089 (file URLs); open(2) on O_NOFOLLOW.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes, urlsplit

from server.media.errors import MediaError
from server.media.types import LocalFile

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_uploaded(file: LocalFile) -> BinaryIO:
    """Open an uploaded file for reading.

    Raises:
        MediaError: it has been deleted.
    """
    try:
        return Path(file.path).open("rb", buffering=0)
    except FileNotFoundError as error:
        raise MediaError("media_file_not_found", "No such File object: it has been deleted.") from error


def open_url(url: str, allowed_path: Path | None) -> BinaryIO:
    """Open the file of a URL for reading.

    Args:
        url: `file:///…`.
        allowed_path: the directory it must lie below; None where no such URL is allowed.

    Raises:
        MediaError: such URLs are not allowed, or there is no regular file of that name below the directory.
    """
    if allowed_path is None:
        raise MediaError("invalid_media_url", "file: URLs are not allowed (media.allowed_local_path is not set).")
    try:
        return _open_below(allowed_path, _names(url, allowed_path))
    except (OSError, ValueError) as error:
        raise MediaError(
            "invalid_media_url",
            "The URL does not lead to a regular file below media.allowed_local_path, or its path contains a link.",
        ) from error


def _names(url: str, directory: Path) -> list[bytes]:
    """The path components from the directory to the file.

    Raises:
        ValueError: the URL does not plainly lead below the directory.
    """
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("not a plain file URL")
    path = unquote_to_bytes(parts.path)
    root = os.fsencode(directory) + b"/"
    if not path.startswith(root):
        raise ValueError("not below the directory")
    names = path[len(root) :].split(b"/")
    if any(name in (b"", b".", b"..") or b"\0" in name for name in names):
        raise ValueError("not a plain path")
    return names


def _open_below(directory: Path, names: list[bytes]) -> BinaryIO:
    parent = os.open(directory, _DIRECTORY)
    try:
        for name in names[:-1]:
            inner = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            os.close(parent)
            parent = inner
        number = os.open(names[-1], _FILE, dir_fd=parent)
    finally:
        os.close(parent)
    file = os.fdopen(number, "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        file.close()
        raise ValueError("not a regular file")
    return file
