"""Uploaded files that all servers see at once: contents in an object store, records and quotas in the shared state.

An upload arrives on this machine's disk. Then its content is stored, then its record, so a file that is known is whole.
A file that is deleted is unknown at once; its content, and the copies of other servers, go with their next sweep.
"""

import asyncio
import contextlib
import logging
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from model_executor.fair_queue import FairQueue
from server.core.concurrency import forever, run_to_completion
from server.core.errors import ApiError, NotFoundError
from server.core.settings import FilesSettings
from server.core.shared_state import SharedState
from server.files.durable import storage_errors
from server.files.quota import all_full, files_full, key_full
from server.files.record import Purpose, Record, owner_of
from server.files.shared.catalog import Catalog, SharedRecord
from server.files.shared.contents import INCOMING, Contents, sha256
from server.files.store import MAX_UPLOADS
from server.files.upload import Upload, new_record

SWEEP_INTERVAL_S = 60.0
STALE_S = 86_400.0
"""Age from which on what lies in `incoming` was left by a server that was killed."""
_log = logging.getLogger("tessera.files")


class SharedFileStore:
    """Implements `interface.Files`.

    Args:
        settings: the limits, and where contents are.
        data_dir: contains this machine's copies.
        state: has records and quotas.
        now_s: the clock, in seconds since 1970.

    Raises:
        SharedStateError: the library for the store is missing.
    """

    def __init__(
        self, settings: FilesSettings, data_dir: Path, state: SharedState, *, now_s: Callable[[], float] = time.time
    ) -> None:
        assert settings.store is not None
        self._settings = settings
        self._now_s = now_s
        self._catalog = Catalog(state, settings)
        cache = data_dir.expanduser().absolute() / "shared-files"
        self._contents = Contents(settings.store, cache, max_cached_bytes=settings.max_cached_bytes)
        self._incoming = cache / INCOMING
        self._places = FairQueue(MAX_UPLOADS, max_per_client=MAX_UPLOADS // 2, max_waiting=4 * MAX_UPLOADS)
        self._on_delete: Callable[[Path], None] = lambda _: None
        self.num_files = 0
        self.num_bytes = 0

    def on_delete(self, forget: Callable[[Path], None]) -> None:
        """As `Files.on_delete`; for files that another server deletes, with the next sweep."""
        self._on_delete = forget

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """As `Files.running`."""
        sweeping = asyncio.create_task(forever(self._sweep_always, "the deletion of expired files"))
        try:
            yield
        finally:
            sweeping.cancel()
            await asyncio.wait({sweeping})

    async def find(self, file_id: str, tenant: str, *, param: str) -> SharedRecord:
        """As `Files.find`."""
        record = await self._catalog.get(owner_of(tenant), file_id)
        if record is None or record.expires_at <= self._now_s():
            raise NotFoundError(f"No such File object: {file_id[:100]}", param=param, code="file_not_found")
        return record

    async def all_of(self, tenant: str) -> list[Record]:
        """As `Files.all_of`."""
        now_s = self._now_s()
        records = [record for record in await self._catalog.all_of(owner_of(tenant)) if record.expires_at > now_s]
        return sorted(records, key=lambda record: (record.created_ns, record.id))

    async def content(self, record: Record, tenant: str) -> Path:
        """As `Files.content`."""
        assert isinstance(record, SharedRecord)
        return await self._contents.get(owner_of(tenant), record.id, record.digest, record.num_bytes)

    @contextlib.asynccontextmanager
    async def receive(self, tenant: str) -> AsyncIterator[Upload]:
        """As `Files.receive`."""
        async with self._places.place():
            usage = await self._catalog.usage(owner_of(tenant))
            if usage.num_files >= self._settings.max_key_files:
                raise files_full(usage.num_files, self._settings)
            num_bytes, total_bytes = usage.num_bytes, usage.total_bytes

            def count(num_more: int) -> None:
                nonlocal num_bytes, total_bytes
                num_bytes, total_bytes = num_bytes + num_more, total_bytes + num_more
                if num_bytes > self._settings.max_key_bytes:
                    raise key_full(self._settings)
                if total_bytes > self._settings.max_total_bytes:
                    raise all_full(self._settings)

            directory = self._incoming / f"file-{secrets.token_urlsafe(24)}"
            upload: Upload | None = None
            try:
                with storage_errors():
                    await run_to_completion(lambda: directory.mkdir(mode=0o700, parents=True))
                    upload = Upload(directory / "content", max_bytes=self._settings.max_file_bytes, count=count)
                yield upload
            finally:
                if upload is not None:
                    upload.close()
                await run_to_completion(lambda: shutil.rmtree(directory, ignore_errors=True))

    async def keep(
        self, upload: Upload, tenant: str, *, filename: str, purpose: Purpose, lifetime_s: int | None
    ) -> Record:
        """As `Files.keep`."""
        plain = new_record(upload, self._settings, self._now_s(), filename, purpose, lifetime_s)
        owner = owner_of(tenant)
        await upload.flush()
        with storage_errors():
            await run_to_completion(upload.sync)
            digest = await run_to_completion(lambda: sha256(upload.path))
        record = SharedRecord(**msgspec.structs.asdict(plain), digest=digest)
        await self._catalog.announce(owner, record.id)
        await self._contents.put(owner, record.id, upload.path)
        match await self._catalog.add(owner, record):
            case "files":
                raise files_full(self._settings.max_key_files, self._settings)
            case "bytes":
                raise key_full(self._settings)
            case "total":
                raise all_full(self._settings)
        return record

    async def delete(self, record: Record, tenant: str) -> None:
        """As `Files.delete`."""
        owner = owner_of(tenant)
        if await self._catalog.remove(owner, record):
            await self._discard(owner, record.id)

    async def sweep(self) -> None:
        """Delete what has expired, what nobody needs, and copies of files that are gone.

        Raises:
            UnavailableError: the store or the shared state does not answer.
        """
        async for owner, record in self._catalog.expired():
            await self._catalog.remove(owner, record)
        for owner, file_id in await self._catalog.garbage():
            await self._discard(owner, file_id)
        for copy in await run_to_completion(self._contents.copies):
            if await self._catalog.get(copy.parent.name, copy.name) is None:
                await self._contents.forget(copy)
                self._on_delete(copy)
        usage = await self._catalog.usage("")
        self.num_files, self.num_bytes = usage.total_files, usage.total_bytes
        await run_to_completion(self._remove_stale)

    async def _discard(self, owner: str, file_id: str) -> None:
        """Delete a content; what cannot be reached now is garbage until the next sweep."""
        self._on_delete(self._contents.path(owner, file_id))
        with contextlib.suppress(ApiError):
            await self._contents.remove(owner, file_id)
            await self._catalog.forget_garbage(owner, file_id)

    def _remove_stale(self) -> None:
        before_s = time.time() - STALE_S
        for left in self._incoming.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if left.stat().st_mtime < before_s:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()

    async def _sweep_always(self) -> None:
        while True:
            with contextlib.suppress(ApiError):  # logged where it was raised
                await self.sweep()
            await asyncio.sleep(SWEEP_INTERVAL_S)
