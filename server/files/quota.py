"""How much every tenant keeps, counted in memory: bytes count from the moment they arrive."""

from collections import Counter

from server.core.errors import StorageError, TooLargeError
from server.core.settings import FilesSettings


class Ledger:
    """Files and bytes by tenant, and in all.

    Args:
        settings: the bounds.
    """

    def __init__(self, settings: FilesSettings) -> None:
        self._settings = settings
        self._num_files: Counter[str] = Counter()
        self._num_bytes: Counter[str] = Counter()

    @property
    def num_files(self) -> int:
        """Files of all tenants, those that are arriving included."""
        return self._num_files.total()

    @property
    def num_bytes(self) -> int:
        """Bytes of all tenants' files, those that are arriving included."""
        return self._num_bytes.total()

    def load(self, owner: str, num_bytes: int) -> None:
        """Count a file that is there already, whatever the bounds."""
        self._num_files[owner] += 1
        self._num_bytes[owner] += num_bytes

    def add_file(self, owner: str) -> None:
        """Count one more file, of no bytes yet.

        Raises:
            TooLargeError: there are as many as there may be.
        """
        limit = self._settings.max_key_files
        if self._num_files[owner] >= limit:
            raise TooLargeError(
                f"This key has {self._num_files[owner]} files; at most {limit} are kept (files.max_key_files). "
                "Delete some first.",
                code="file_quota_exceeded",
            )
        self._num_files[owner] += 1

    def add_bytes(self, owner: str, num_bytes: int) -> None:
        """Count bytes that have come; they stay counted where a bound is passed, until `remove`.

        Raises:
            TooLargeError: the tenant's files are too large together.
            StorageError: all files are too large together.
        """
        self._num_bytes[owner] += num_bytes
        limit = self._settings.max_key_bytes
        if self._num_bytes[owner] > limit:
            raise TooLargeError(
                f"The files of this key would be larger than {limit} bytes together (files.max_key_bytes). "
                "Delete some first.",
                param="file",
                code="file_quota_exceeded",
            )
        limit = self._settings.max_total_bytes
        if self.num_bytes > limit:
            raise StorageError(
                f"The files of all keys would be larger than {limit} bytes together (files.max_total_bytes).",
                param="file",
            )

    def remove(self, owner: str, num_bytes: int) -> None:
        """Stop counting a file."""
        self._num_files[owner] -= 1
        self._num_bytes[owner] -= num_bytes
