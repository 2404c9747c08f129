"""Files of this machine as media: uploaded ones, and those a `file:` URL names below one folder.

A `file:` URL is followed one name at a time, from the folder's own descriptor, and no link is followed on the way, so
that no moment lies between check and use. Opening never waits, so a pipe cannot hold anything up.

Source: RFC 8089 (file URLs); open(2) on O_NOFOLLOW.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes, urlsplit

from server.core.errors import BadRequestError, NotFoundError
from server.media.types import LocalFile

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_uploaded(file: LocalFile, param: str) -> BinaryIO:
    """An uploaded file, to read.

    Raises:
        NotFoundError: it was deleted meanwhile.
    """
    try:
        return Path(file.path).open("rb", buffering=0)
    except FileNotFoundError as error:
        raise NotFoundError("No such File object: it was deleted meanwhile", param=param) from error


def open_url(url: str, folder: Path | None, param: str) -> BinaryIO:
    """The file a URL names, to read.

    Args:
        url: `file:///…`.
        folder: below which it must lie; None where no such URL is taken.
        param: the request field, for errors.

    Raises:
        BadRequestError: no such URLs are taken, or it names no regular file below the folder.
    """
    if folder is None:
        raise BadRequestError("file: URLs are not taken (media.file_folder is not set).", param=param)
    try:
        return _open_below(folder, _names(url, folder))
    except (OSError, ValueError) as error:
        raise BadRequestError(
            "The URL names no regular file below the folder for media files (media.file_folder), or passes a link.",
            param=param,
        ) from error


def _names(url: str, folder: Path) -> list[bytes]:
    """The names from the folder to the file.

    Raises:
        ValueError: the URL does not lead below the folder, or not plainly.
    """
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("not a plain file URL")
    path = unquote_to_bytes(parts.path)
    root = os.fsencode(folder) + b"/"
    if not path.startswith(root):
        raise ValueError("not below the folder")
    names = path[len(root) :].split(b"/")
    if any(name in (b"", b".", b"..") or b"\0" in name for name in names):
        raise ValueError("not a plain path")
    return names


def _open_below(folder: Path, names: list[bytes]) -> BinaryIO:
    place = os.open(folder, _FOLDER)
    try:
        for name in names[:-1]:
            inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = inner
        number = os.open(names[-1], _FILE, dir_fd=place)
    finally:
        os.close(place)
    file = os.fdopen(number, "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        file.close()
        raise ValueError("not a regular file")
    return file
