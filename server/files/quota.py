"""Storage quota: counts each tenant's files and bytes in memory and enforces the limits, while files arrive."""

from collections import Counter

from server.core.errors import StorageError, TooLargeError
from server.core.settings import FilesSettings


class Quota:
    """Number and size of the files of each tenant, and in total.

    Args:
        settings: the limits.
    """

    def __init__(self, settings: FilesSettings) -> None:
        self._settings = settings
        self._num_files: Counter[str] = Counter()
        self._num_bytes: Counter[str] = Counter()

    @property
    def num_files(self) -> int:
        """Files of all tenants, including those that are arriving."""
        return self._num_files.total()

    @property
    def num_bytes(self) -> int:
        """Size of all tenants' files, including those that are arriving."""
        return self._num_bytes.total()

    def load(self, owner: str, num_bytes: int) -> None:
        """Count a file that is already stored, even if it exceeds a limit."""
        self._num_files[owner] += 1
        self._num_bytes[owner] += num_bytes

    def add_file(self, owner: str) -> None:
        """Count one more file, with no bytes yet.

        Raises:
            TooLargeError: the tenant has as many files as allowed.
        """
        if self._num_files[owner] >= self._settings.max_key_files:
            raise files_full(self._num_files[owner], self._settings)
        self._num_files[owner] += 1

    def add_bytes(self, owner: str, num_bytes: int) -> None:
        """Count bytes that have arrived; they stay counted until `remove`, even if they exceed a limit.

        Raises:
            TooLargeError: the total size of the tenant's files exceeds the limit.
            StorageError: the total size of all files exceeds the limit.
        """
        self._num_bytes[owner] += num_bytes
        if self._num_bytes[owner] > self._settings.max_key_bytes:
            raise key_full(self._settings)
        if self.num_bytes > self._settings.max_total_bytes:
            raise all_full(self._settings)

    def remove(self, owner: str, num_bytes: int) -> None:
        """Stop counting a file."""
        self._num_files[owner] -= 1
        self._num_bytes[owner] -= num_bytes


def files_full(num_files: int, settings: FilesSettings) -> TooLargeError:
    """A tenant has as many files as allowed."""
    return TooLargeError(
        f"This key has {num_files} files; the limit is {settings.max_key_files} (files.max_key_files). "
        "Delete some first.",
        code="file_quota_exceeded",
    )


def key_full(settings: FilesSettings) -> TooLargeError:
    """The total size of a tenant's files exceeds the limit."""
    return TooLargeError(
        f"The total size of this key's files would exceed {settings.max_key_bytes} bytes (files.max_key_bytes). "
        "Delete some first.",
        param="file",
        code="file_quota_exceeded",
    )


def all_full(settings: FilesSettings) -> StorageError:
    """The total size of all files exceeds the limit."""
    return StorageError(
        f"The total size of all keys' files would exceed {settings.max_total_bytes} bytes (files.max_total_bytes).",
        param="file",
    )
