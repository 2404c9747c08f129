"""The disk, asked plainly: whole writes, durable folders, and its errors in the API's words."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from server.core.errors import StorageError, UnavailableError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_all(file: int, data: bytes) -> None:
    """Write all of `data`, however many calls that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def write_new(path: Path, data: bytes) -> None:
    """Make a file that outlives the machine."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make sure that the names in a folder outlive the machine."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns the disk's errors into the API's, without paths.

    Raises:
        UnavailableError: another server holds the lock.
        StorageError: the disk is full, or cannot be written to.
    """
    try:
        yield
    except BlockingIOError as error:
        raise UnavailableError(
            "The folder of uploaded files is in use by another server (data_dir).", code="files_unavailable"
        ) from error
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError("The disk for uploaded files is full (data_dir).") from error
        reason = os.strerror(error.errno) if error.errno else "unknown"
        raise StorageError(f"The server cannot keep files: {reason} (data_dir).", code="storage_unavailable") from error
