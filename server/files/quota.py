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
        limit = self._settings.max_key_files
        if self._num_files[owner] >= limit:
            raise TooLargeError(
                f"This key has {self._num_files[owner]} files; the limit is {limit} (files.max_key_files). "
                "Delete some first.",
                code="file_quota_exceeded",
            )
        self._num_files[owner] += 1

    def add_bytes(self, owner: str, num_bytes: int) -> None:
        """Count bytes that have arrived; they stay counted until `remove`, even if they exceed a limit.

        Raises:
            TooLargeError: the total size of the tenant's files exceeds the limit.
            StorageError: the total size of all files exceeds the limit.
        """
        self._num_bytes[owner] += num_bytes
        limit = self._settings.max_key_bytes
        if self._num_bytes[owner] > limit:
            raise TooLargeError(
                f"The total size of this key's files would exceed {limit} bytes (files.max_key_bytes). "
                "Delete some first.",
                param="file",
                code="file_quota_exceeded",
            )
        limit = self._settings.max_total_bytes
        if self.num_bytes > limit:
            raise StorageError(
                f"The total size of all keys' files would exceed {limit} bytes (files.max_total_bytes).",
                param="file",
            )

    def remove(self, owner: str, num_bytes: int) -> None:
        """Stop counting a file."""
        self._num_files[owner] -= 1
        self._num_bytes[owner] -= num_bytes
