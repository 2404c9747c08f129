"""What routes need of the place where uploaded files are kept: a directory of this server, or one shared by several."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from server.files.record import Purpose, Record
from server.files.upload import Upload


class Files(Protocol):
    """The uploaded files of all tenants."""

    @property
    def num_files(self) -> int:
        """Number of all tenants' files, for metrics."""

    @property
    def num_bytes(self) -> int:
        """Total size of all tenants' files, for metrics."""

    def on_delete(self, forget: Callable[[Path], None]) -> None:
        """Call `forget` with the path of the content of each file that is deleted."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Delete expired files in the meantime."""

    async def find(self, file_id: str, tenant: str, *, param: str) -> Record:
        """The tenant's file with that id.

        Args:
            file_id: its id.
            tenant: its owner.
            param: the request field, for the error.

        Raises:
            NotFoundError: there is none, or it has expired.
            UnavailableError: nobody can tell at the moment.
        """

    async def all_of(self, tenant: str) -> list[Record]:
        """All files of a tenant, oldest first.

        Raises:
            UnavailableError: nobody can tell at the moment.
        """

    async def content(self, record: Record, tenant: str) -> Path:
        """A file on this machine with the content; it does not exist any more once the file is deleted.

        Raises:
            NotFoundError: it has been deleted.
            UnavailableError: it cannot be fetched at the moment.
        """

    def receive(self, tenant: str) -> AbstractAsyncContextManager[Upload]:
        """Receive a file; it is deleted on exit unless `keep` was called.

        Raises:
            TooLargeError: the tenant has as many files as allowed.
            UnavailableError: no file can be kept at the moment.
            StorageError: this server's disk cannot be used.
        """

    async def keep(
        self, upload: Upload, tenant: str, *, filename: str, purpose: Purpose, lifetime_s: int | None
    ) -> Record:
        """Store a complete upload as a file.

        Args:
            upload: the upload.
            tenant: the owner.
            filename: the name on the client.
            purpose: from the request.
            lifetime_s: requested lifetime; None, or more than the server's maximum, means that maximum.

        Raises:
            BadRequestError: the file is empty, or neither an image nor a video.
            TooLargeError: a limit of the tenant has been reached in the meantime.
            UnavailableError: it cannot be kept at the moment.
            StorageError: there is no room for it.
        """

    async def delete(self, record: Record, tenant: str) -> None:
        """Delete a file; downloads in progress continue.

        Raises:
            UnavailableError: it cannot be deleted at the moment.
            StorageError: it cannot be deleted.
        """
