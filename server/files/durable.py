"""Durable file operations: complete writes, fsync of files and directories, and OSErrors as API errors."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from server.core.errors import StorageError, UnavailableError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_all(file: int, data: bytes) -> None:
    """Write all of `data` to a file descriptor, in as many calls as it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def write_new(path: Path, data: bytes) -> None:
    """Write a new file that survives a power failure."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Raise OSErrors of the block as API errors, without paths.

    Raises:
        UnavailableError: another server holds the lock.
        StorageError: the disk is full, or cannot be written to.
    """
    try:
        yield
    except BlockingIOError as error:
        raise UnavailableError(
            "The directory of uploaded files is in use by another server (data_dir).", code="files_unavailable"
        ) from error
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError("The server's disk for uploaded files is full (data_dir).") from error
        reason = os.strerror(error.errno) if error.errno else "unknown"
        raise StorageError(
            f"The server cannot store files: {reason} (data_dir).", code="storage_unavailable"
        ) from error
