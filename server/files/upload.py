"""A file that is being uploaded: writes its bytes to disk as they arrive and enforces the size limits."""

import os
from collections.abc import Callable
from pathlib import Path

from server.core.concurrency import run_to_completion
from server.core.errors import BadRequestError, TooLargeError
from server.core.format_names import refusal
from server.core.mime import HEAD_BYTES, detect_modality
from server.core.settings import FilesSettings
from server.files.durable import storage_errors, write_all
from server.files.record import Purpose, Record

_BUFFER_BYTES = 1 << 20


class Upload:
    """A file that is arriving. Made by `FileStore.receive`.

    Args:
        path: of the file, which is created.
        max_bytes: maximum size.
        count: called with the number of bytes before they are written; may raise to reject them.
    """

    def __init__(self, path: Path, *, max_bytes: int, count: Callable[[int], None]) -> None:
        self.path = path
        self.num_bytes = 0
        """Bytes that have arrived."""
        self.head = b""
        """The first `HEAD_BYTES` of them."""
        self._max_bytes = max_bytes
        self._count = count
        self._buffer: list[bytes] = []
        self._num_buffered_bytes = 0
        self._file = path.open("xb", buffering=0)

    async def write(self, data: bytes) -> None:
        """Add the next bytes.

        Raises:
            TooLargeError: the file, or the total of the tenant's files, is too large.
            StorageError: the total of all tenants' files is too large, or the disk is full.
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
        self._buffer.append(data)
        self._num_buffered_bytes += len(data)
        if self._num_buffered_bytes >= _BUFFER_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write the buffered bytes.

        Raises:
            StorageError: the disk is full.
        """
        data, self._buffer, self._num_buffered_bytes = b"".join(self._buffer), [], 0
        with storage_errors():
            await run_to_completion(lambda: write_all(self._file.fileno(), data))

    def sync(self) -> None:
        """Make the written bytes survive a power failure, and close the file."""
        os.fsync(self._file.fileno())
        self._file.close()

    def close(self) -> None:
        """Close the file; may be called more than once."""
        self._file.close()


def new_record(
    upload: Upload, settings: FilesSettings, now_s: float, filename: str, purpose: Purpose, lifetime_s: int | None
) -> Record:
    """The record of a complete upload, whose directory has its id as a name.

    Args:
        upload: the upload.
        settings: the longest lifetime.
        now_s: seconds since 1970.
        filename: the name on the client.
        purpose: from the request.
        lifetime_s: requested lifetime; None, or more than the server's maximum, means that maximum.

    Raises:
        BadRequestError: the file is empty, or neither an image nor a video.
    """
    if not upload.num_bytes:
        raise BadRequestError("The file is empty (0 bytes).", param="file", code="empty_file")
    modality = detect_modality(upload.head)
    if modality is None:
        raise BadRequestError(
            refusal(upload.head) or "The file is neither an image nor a video in a supported format.",
            param="file",
            code="unsupported_file",
        )
    max_lifetime_s = settings.expires_after_s
    return Record(
        id=upload.path.parent.name,
        filename=filename,
        purpose=purpose,
        num_bytes=upload.num_bytes,
        created_ns=int(now_s * 1e9),
        expires_at=int(now_s) + min(max_lifetime_s, max_lifetime_s if lifetime_s is None else lifetime_s),
        modality=modality,
    )
