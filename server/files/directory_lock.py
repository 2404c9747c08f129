"""The lock on the directory of uploaded files: one server at a time uses it."""

import fcntl
import os
from pathlib import Path

LOCK_NAME = "lock"


def take(directory: Path) -> int:
    """Lock a directory.

    Args:
        directory: is there, and can be written to.

    Returns:
        A file number; closing it, or the end of the process, lets go of the directory.

    Raises:
        BlockingIOError: another process has it.
        OSError: the lock cannot be written.
    """
    lock = os.open(directory / LOCK_NAME, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(lock)
        raise
    return lock


def is_taken(data_dir: Path) -> bool:
    """Whether a server has the directory of uploads below `data_dir` now. Leaves nothing behind."""
    directory = data_dir / "files"
    if not (directory / LOCK_NAME).is_file():
        return False
    try:
        os.close(take(directory))
    except BlockingIOError:
        return True
    return False
