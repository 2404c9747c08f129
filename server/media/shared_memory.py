"""Shared memory that this server owns: a directory of files, and an account of the bytes they use.

The directory's name is unguessable and contains the process id for people. Its owner locks a file in it for as long as
it lives; a directory whose lock is free was left by a dead server and is deleted at the next start. A process id alone
would not do: containers that share the file system number their processes separately.
"""

import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import blake3

from server.core.errors import RateLimitError

_PREFIX = "tessera-"
_LOCK = "lock"


class SharedMemoryFullError(RateLimitError):
    """No shared memory is left: prepared media use all they may, or all the machine has."""

    def __init__(self) -> None:
        """The text is always the same."""
        super().__init__(
            "The shared memory for media is full (media.max_shared_bytes, or all the machine has); retry later.",
            retry_after_s=5,
        )


class SharedFile:
    """One file and the bytes reserved for it. A context manager: leaving it releases.

    Made by `SharedDirectory.create_file`.
    """

    def __init__(self, directory: "SharedDirectory", path: Path, num_bytes: int) -> None:
        self._directory = directory
        self.path = path
        """The file; empty at first."""
        self.num_bytes = num_bytes
        """Bytes reserved for it."""
        self._appended_bytes = 0
        self._hash = blake3.blake3()
        self._released = False

    @property
    def digest(self) -> str:
        """Hex BLAKE3 of everything appended."""
        return self._hash.hexdigest()

    def append(self, data: bytes) -> None:
        """Write at the end of the file and reserve as many bytes more.

        Raises:
            SharedMemoryFullError: see the class.
        """
        self._directory.reserve(len(data))
        self.num_bytes += len(data)
        try:
            try:
                self._write(data)
            except OSError:  # the machine has less than the limit allows
                if not self._directory.reclaim(self._directory.used_bytes):
                    raise
                self._write(data)
        except OSError as error:
            raise SharedMemoryFullError from error
        self._appended_bytes += len(data)
        self._hash.update(data)

    def _write(self, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(self._appended_bytes)
            file.write(data)

    def resize(self, num_bytes: int) -> None:
        """Reserve `num_bytes` instead.

        Raises:
            SharedMemoryFullError: see the class.
        """
        self._directory.reserve(num_bytes - self.num_bytes)
        self.num_bytes = num_bytes

    def release(self) -> None:
        """Delete the file and free its bytes; may be called more than once."""
        if not self._released:
            self._released = True
            self.path.unlink(missing_ok=True)
            self._directory.unreserve(self.num_bytes)

    def __enter__(self) -> Self:
        """The file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Releases."""
        self.release()


class SharedDirectory:
    """A directory in shared memory that is deleted when its owner ends.

    Args:
        root: the shared-memory file system.
        max_bytes: what all files together may use.
        reclaim: releases files that can be spared, up to a number of bytes; returns how many it freed.
    """

    def __init__(self, root: Path, max_bytes: int, reclaim: Callable[[int], int] = lambda _: 0) -> None:
        """Deletes what dead servers left, then makes the directory."""
        self._max_bytes = max_bytes
        self.reclaim = reclaim
        self._used_bytes = 0
        sweep(root)
        name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(16)}"
        # Locked before it gets the name a sweep looks for.
        unlocked = root / f".{name}"
        unlocked.mkdir(mode=0o700)
        self._lock = os.open(unlocked / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = unlocked.rename(root / name)
        """The directory."""

    @property
    def used_bytes(self) -> int:
        """Bytes reserved at the moment."""
        return self._used_bytes

    def create_file(self, num_bytes: int) -> SharedFile:
        """Make an empty file and reserve bytes for it.

        Raises:
            SharedMemoryFullError: see the class.
        """
        self.reserve(num_bytes)
        path = self.path / secrets.token_hex(16)
        path.touch(mode=0o600)
        return SharedFile(self, path, num_bytes)

    def reserve(self, num_bytes: int) -> None:
        """Count bytes as used.

        Raises:
            SharedMemoryFullError: that would be more than `max_bytes`, whatever is reclaimed.
        """
        self.reclaim(self._used_bytes + num_bytes - self._max_bytes)
        if self._used_bytes + num_bytes > self._max_bytes:
            raise SharedMemoryFullError
        self._used_bytes += num_bytes

    def unreserve(self, num_bytes: int) -> None:
        """Count bytes as free again."""
        self._used_bytes -= num_bytes

    def close(self) -> None:
        """Delete the directory and everything in it."""
        shutil.rmtree(self.path)
        os.close(self._lock)


def sweep(root: Path) -> None:
    """Delete the directories of servers that died without doing so."""
    for directory in root.glob(f"{_PREFIX}*"):
        try:
            status = directory.lstat()
        except FileNotFoundError:  # its owner has just deleted it
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            _remove_if_orphaned(directory)


def _remove_if_orphaned(directory: Path) -> None:
    try:
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:  # its owner is deleting it right now
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory)
    except BlockingIOError:  # its owner lives
        return
    finally:
        os.close(lock)
