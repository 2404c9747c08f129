"""Shared memory this server owns: a folder below /dev/shm and a ledger of what lies in it.

The folder's name is unguessable and carries the process id for people. Its owner holds a lock on a file in it for as
long as it lives; a folder whose lock can be taken was left by a dead server and is removed at the next start. A
process id alone would not do: containers that share /dev/shm count theirs separately.
"""

import fcntl
import os
import secrets
import shutil
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from server.errors import RateLimitError

_PREFIX = "tessera-"
_LOCK = "lock"


class Lease:
    """One file of the folder and the bytes set aside for it. A context manager: leaving it releases.

    Made by `SharedFolder.lease`.
    """

    def __init__(self, folder: "SharedFolder", path: Path, num_bytes: int) -> None:
        """See the class."""
        self._folder = folder
        self.path = path
        """The file; empty at first."""
        self.num_bytes = num_bytes
        """Bytes the ledger counts for it."""
        self._released = False

    def append(self, data: bytes) -> None:
        """Write at the end of the file and set aside as many bytes more.

        Raises:
            RateLimitError: shared memory is full.
        """
        self._folder.reserve(len(data))
        self.num_bytes += len(data)
        try:
            with self.path.open("ab") as file:
                file.write(data)
        except OSError as error:
            raise full_error() from error

    def shrink(self, num_bytes: int) -> None:
        """Keep only `num_bytes` of what was set aside."""
        self._folder.unreserve(self.num_bytes - num_bytes)
        self.num_bytes = num_bytes

    def release(self) -> None:
        """Delete the file and give its bytes back; may be called more than once."""
        if not self._released:
            self._released = True
            self.path.unlink(missing_ok=True)
            self._folder.unreserve(self.num_bytes)

    def __enter__(self) -> Self:
        """The lease itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Releases."""
        self.release()


class SharedFolder:
    """A folder in shared memory that goes when its owner goes.

    Args:
        root: the shared-memory file system.
        max_bytes: what all files together may take.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        """Sweeps what dead servers left, then makes the folder."""
        self._max_bytes = max_bytes
        self._used_bytes = 0
        sweep(root)
        name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(16)}"
        # Locked before it gets the name a sweep looks for.
        unlocked = root / f".{name}"
        unlocked.mkdir(mode=0o700)
        self._lock = os.open(unlocked / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = unlocked.rename(root / name)
        """The folder."""

    @property
    def used_bytes(self) -> int:
        """Bytes set aside at the moment."""
        return self._used_bytes

    def lease(self, num_bytes: int) -> Lease:
        """Make an empty file and set bytes aside for it.

        Raises:
            RateLimitError: shared memory is full.
        """
        self.reserve(num_bytes)
        path = self.path / secrets.token_hex(16)
        path.touch(mode=0o600)
        return Lease(self, path, num_bytes)

    def reserve(self, num_bytes: int) -> None:
        """Count bytes as used.

        Raises:
            RateLimitError: that would be more than `max_bytes`.
        """
        if self._used_bytes + num_bytes > self._max_bytes:
            raise full_error()
        self._used_bytes += num_bytes

    def unreserve(self, num_bytes: int) -> None:
        """Count bytes as free again."""
        self._used_bytes -= num_bytes

    def close(self) -> None:
        """Delete the folder and everything in it."""
        shutil.rmtree(self.path)
        os.close(self._lock)


def full_error() -> RateLimitError:
    """What a request hears when prepared media fill the memory they may take."""
    return RateLimitError(
        "Media in work fill the shared memory they may take (media.max_shared_bytes) or the machine has.",
        retry_after_s=5,
    )


def sweep(root: Path) -> None:
    """Delete the folders of servers that died without doing so."""
    for folder in root.glob(f"{_PREFIX}*"):
        try:
            status = folder.lstat()
        except FileNotFoundError:  # its owner has just deleted it
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            _remove_if_orphaned(folder)


def _remove_if_orphaned(folder: Path) -> None:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:  # its owner is deleting it right now
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except BlockingIOError:  # its owner lives
        return
    finally:
        os.close(lock)
