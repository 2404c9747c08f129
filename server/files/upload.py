"""One file that is arriving: written to disk as it comes, its bounds watched byte by byte."""

import os
from collections.abc import Callable
from pathlib import Path

from server.core.concurrency import in_thread
from server.core.errors import TooLargeError
from server.core.mime import HEAD_BYTES
from server.files.durable import translated, write_all

_BUFFER_BYTES = 1 << 20


class Upload:
    """A file that is arriving. Made by `FileStore.receive`.

    Args:
        path: where its bytes go; made here.
        max_bytes: how many there may be.
        count: hears of bytes before they are written, and may refuse them.
    """

    def __init__(self, path: Path, *, max_bytes: int, count: Callable[[int], None]) -> None:
        self.path = path
        self.num_bytes = 0
        """Bytes that have come."""
        self.head = b""
        """The first `HEAD_BYTES` of them."""
        self._max_bytes = max_bytes
        self._count = count
        self._waiting: list[bytes] = []
        self._num_waiting_bytes = 0
        self._file = path.open("xb", buffering=0)

    async def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            TooLargeError: the file, or the tenant's files, are too large.
            StorageError: the files of all tenants are too large, or the disk is full.
        """
        self.num_bytes += len(data)
        self._count(len(data))
        if self.num_bytes > self._max_bytes:
            raise TooLargeError(
                f"The file is larger than {self._max_bytes} bytes (files.max_file_bytes).",
                param="file",
                code="file_too_large",
            )
        self.head += data[: HEAD_BYTES - len(self.head)]
        self._waiting.append(data)
        self._num_waiting_bytes += len(data)
        if self._num_waiting_bytes >= _BUFFER_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write what waits.

        Raises:
            StorageError: the disk is full.
        """
        data, self._waiting, self._num_waiting_bytes = b"".join(self._waiting), [], 0
        with translated():
            await in_thread(lambda: write_all(self._file.fileno(), data))

    def settle(self) -> None:
        """Make sure that what was written outlives the machine."""
        os.fsync(self._file.fileno())
        self._file.close()

    def close(self) -> None:
        """Let go of the file; may be called more than once."""
        self._file.close()
