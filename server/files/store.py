"""Storage of uploaded files on disk: receive, keep, look up, delete, expire. One directory per tenant and per file.

    DATA/files/lock                       held by the server that uses the directory
    DATA/files/incoming/ID/content        while the file arrives
    DATA/files/TENANT/ID/content          once it is complete: the directory is renamed
    DATA/files/TENANT/ID/record.json

Files appear and disappear by renaming, never in part. What a crash leaves is in `incoming/`, which is emptied at
startup. Records are kept in memory; every disk operation runs in a thread.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import msgspec

from model_executor.fair_queue import FairQueue
from server.core.concurrency import forever, run_to_completion
from server.core.errors import ApiError, NotFoundError, StorageError
from server.core.mime import HEAD_BYTES, detect_modality
from server.core.settings import FilesSettings
from server.files.directory_lock import LOCK_NAME, take
from server.files.durable import storage_errors, sync_directory, write_new
from server.files.quota import Quota
from server.files.record import Purpose, Record, owner_of
from server.files.upload import Upload, new_record

SWEEP_INTERVAL_S = 60.0
"""How often expired files are deleted; they are invisible from the second they expire."""

MAX_CLOCK_STEP_S = 60.0
"""A clock that is set by more than this may be wrong."""
STEADY_S = 600.0
"""How long the clock must have run steadily, since the start or since it was set, before files are deleted by it."""
MAX_UPLOADS = 16
"""Uploads in progress; half of them per client."""

_CONTENT, _RECORD, _INCOMING = "content", "record.json", "incoming"
_log = logging.getLogger(__name__)


def uptime_s() -> float:
    """Seconds since the machine was started, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class FileStore:
    """Implements `interface.Files` in a directory of this server.

    Args:
        settings: the limits.
        data_dir: contains the files; created with the first upload.
        now_s: the clock, in seconds since 1970.
        uptime_s: a clock that cannot be set, in seconds.
    """

    def __init__(
        self,
        settings: FilesSettings,
        data_dir: Path,
        *,
        now_s: Callable[[], float] = time.time,
        uptime_s: Callable[[], float] = uptime_s,
    ) -> None:
        self._uptime_s = uptime_s
        self._steady_since_s = uptime_s()
        self._offset_s = now_s() - self._steady_since_s
        self._on_delete: Callable[[Path], None] = lambda _: None
        self._settings = settings
        self._root = Path(os.path.expanduser(data_dir)).absolute() / "files"  # noqa: PTH111 - a home is not needed
        self._now_s = now_s
        self._quota = Quota(settings)
        self._lock: int | None = None
        self._opening = asyncio.Lock()
        self._discarding = asyncio.Lock()
        self._places = FairQueue(MAX_UPLOADS, max_per_client=MAX_UPLOADS // 2, max_waiting=4 * MAX_UPLOADS)
        self._records: dict[str, dict[str, Record]] = {}
        self._last_warning = ""

    @property
    def num_files(self) -> int:
        """Number of all tenants' files, for metrics."""
        return self._quota.num_files

    @property
    def num_bytes(self) -> int:
        """Total size of all tenants' files, for metrics."""
        return self._quota.num_bytes

    def on_delete(self, forget: Callable[[Path], None]) -> None:
        """Call `forget` with the path of the content of each file that is deleted."""
        self._on_delete = forget

    def num_orphaned(self, tenants: Iterable[str]) -> int:
        """Files of other tenants than these, which no request can use until they expire."""
        owners = set(map(owner_of, tenants))
        return sum(len(records) for owner, records in self._records.items() if owner not in owners)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read the stored files and delete expired ones; on exit, release the lock."""
        await self._clean_up()
        sweeping = asyncio.create_task(forever(self._sweep_periodically, "the deletion of expired files"))
        try:
            yield
        finally:
            sweeping.cancel()
            await asyncio.wait({sweeping})
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    async def open(self, *, make: bool) -> None:
        """Lock the directory and read its records, unless this server has already done so and it is still there.

        Args:
            make: whether to create the directory if it is missing.

        Raises:
            UnavailableError: another server has locked it.
            StorageError: it cannot be used.
        """
        async with self._opening:
            with storage_errors():
                await run_to_completion(lambda: self._lock_root(make=make))

    def get(self, file_id: str, tenant: str) -> Record | None:
        """The tenant's file with that id; None if there is none, or it has expired."""
        record = self._records.get(owner_of(tenant), {}).get(file_id)
        return None if record is None or record.expires_at <= self._now_s() else record

    async def find(self, file_id: str, tenant: str, *, param: str) -> Record:
        """As `Files.find`."""
        record = self.get(file_id, tenant)
        if record is None:
            raise NotFoundError(f"No such File object: {file_id[:100]}", param=param, code="file_not_found")
        return record

    def path(self, record: Record, tenant: str) -> Path:
        """Path of the content; it does not exist any more once the file is deleted."""
        return self._root / owner_of(tenant) / record.id / _CONTENT

    async def content(self, record: Record, tenant: str) -> Path:
        """As `Files.content`; whether it is there shows when it is opened."""
        return self.path(record, tenant)

    async def all_of(self, tenant: str) -> list[Record]:
        """As `Files.all_of`."""
        now_s = self._now_s()
        records = list(self._records.get(owner_of(tenant), {}).values())
        return sorted((record for record in records if record.expires_at > now_s), key=lambda r: (r.created_ns, r.id))

    @contextlib.asynccontextmanager
    async def receive(self, tenant: str) -> AsyncIterator[Upload]:
        """As `Files.receive`."""
        async with self._places.place(), self._received(tenant) as upload:
            yield upload

    @contextlib.asynccontextmanager
    async def _received(self, tenant: str) -> AsyncIterator[Upload]:
        await self.open(make=True)
        owner = owner_of(tenant)
        self._quota.add_file(owner)
        directory = self._root / _INCOMING / f"file-{secrets.token_urlsafe(24)}"
        upload: Upload | None = None
        try:
            with storage_errors():
                await run_to_completion(lambda: directory.mkdir(mode=0o700))
                upload = Upload(
                    directory / _CONTENT,
                    max_bytes=self._settings.max_file_bytes,
                    count=lambda num_bytes: self._quota.add_bytes(owner, num_bytes),
                )
            yield upload
        finally:
            if upload is not None:
                upload.close()
            if directory.name not in self._records.get(owner, {}):
                self._quota.remove(owner, upload.num_bytes if upload else 0)
                await run_to_completion(lambda: shutil.rmtree(directory, ignore_errors=True))

    async def keep(
        self, upload: Upload, tenant: str, *, filename: str, purpose: Purpose, lifetime_s: int | None
    ) -> Record:
        """As `Files.keep`."""
        record = new_record(upload, self._settings, self._now_s(), filename, purpose, lifetime_s)
        await upload.flush()
        with storage_errors():
            await run_to_completion(lambda: self._commit(upload, record, owner_of(tenant)))
        return record

    async def delete(self, record: Record, tenant: str) -> None:
        """As `Files.delete`."""
        await self._discard(owner_of(tenant), record)

    async def sweep(self) -> None:
        """Delete expired files.

        Raises:
            StorageError: a file cannot be deleted and is unchanged; the others are deleted.
        """
        now_s = self._now_s()
        refusal: StorageError | None = None
        for owner, records in list(self._records.items()):
            for record in [record for record in list(records.values()) if record.expires_at <= now_s]:
                try:
                    await self._discard(owner, record)
                except StorageError as error:
                    refusal = error
        if refusal is not None:
            raise refusal

    async def _discard(self, owner: str, record: Record) -> None:
        trash = self._root / _INCOMING / secrets.token_urlsafe(24)
        async with self._discarding:
            if record.id not in self._records.get(owner, {}):
                return  # two requests delete the same file
            with storage_errors():
                await run_to_completion(lambda: self._move_to_trash(owner, record, trash))
        self._on_delete(self._root / owner / record.id / _CONTENT)
        # If that fails, the next start deletes it.
        await run_to_completion(lambda: shutil.rmtree(trash, ignore_errors=True))

    def _move_to_trash(self, owner: str, record: Record, trash: Path) -> None:
        """Change the disk first, then memory: a file that cannot be moved stays visible, and can be deleted again."""
        trash.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another program has removed it
            (self._root / owner / record.id).rename(trash)
        del self._records[owner][record.id]
        self._quota.remove(owner, record.num_bytes)

    def _lock_root(self, *, make: bool) -> None:
        if self._lock is not None:
            if self._has_lock():
                (self._root / _INCOMING).mkdir(mode=0o700, exist_ok=True)  # programs that clean up may remove it
                return
            _log.warning("the directory of uploaded files was removed or replaced and is read again")
            os.close(self._lock)
            self._lock = None
            self._records, self._quota = {}, Quota(self._settings)
        if not make and not self._root.is_dir():
            return
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = take(self._root)
        try:
            incoming = self._root / _INCOMING
            if incoming.is_dir():
                shutil.rmtree(incoming)
            incoming.mkdir(mode=0o700)
            self._read_records()
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def _has_lock(self) -> bool:
        """Whether the locked file is still the one in the directory."""
        assert self._lock is not None
        try:
            return os.path.samestat(os.fstat(self._lock), (self._root / LOCK_NAME).stat())
        except FileNotFoundError:
            return False

    def _read_records(self) -> None:
        self._records, self._quota = {}, Quota(self._settings)
        for path in self._root.glob(f"*/*/{_CONTENT}"):
            try:
                record = msgspec.json.decode((path.parent / _RECORD).read_bytes(), type=Record)
            except (msgspec.DecodeError, FileNotFoundError) as error:
                _log.warning("an uploaded file gets a new record: unreadable record: %s", error)
                record = self._new_record(path)
            owner = path.parent.parent.name
            self._records.setdefault(owner, {})[record.id] = record
            self._quota.load(owner, record.num_bytes)

    def _new_record(self, content: Path) -> Record:
        """A record from the file itself, so that it counts, can be deleted, and expires."""
        facts = content.stat()
        with content.open("rb") as file:
            modality = detect_modality(file.read(HEAD_BYTES))
        return Record(
            id=content.parent.name,
            filename="unknown",
            purpose="user_data",
            num_bytes=facts.st_size,
            created_ns=facts.st_mtime_ns,
            expires_at=int(facts.st_mtime) + self._settings.expires_after_s,
            modality=modality or "image",
        )

    def _commit(self, upload: Upload, record: Record, owner: str) -> None:
        """Change disk and memory in one step, so that a canceled request has changed both or neither."""
        upload.sync()
        write_new(upload.path.parent / _RECORD, msgspec.json.encode(record))
        directory = self._root / owner
        directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(upload.path.parent)
        sync_directory(self._root)
        upload.path.parent.rename(directory / record.id)
        sync_directory(directory)
        self._records.setdefault(owner, {})[record.id] = record

    async def _sweep_periodically(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            await self._clean_up()

    def _clock_is_steady(self) -> bool:
        """Whether the clock agrees with the machine's uptime, and has for a while; a wrong clock deletes nothing."""
        uptime_s = self._uptime_s()
        offset_s = self._now_s() - uptime_s
        if abs(offset_s - self._offset_s) > MAX_CLOCK_STEP_S:
            _log.warning("the clock was set by %.0f s; expired files are kept for now", offset_s - self._offset_s)
            self._offset_s, self._steady_since_s = offset_s, uptime_s
        return uptime_s - self._steady_since_s >= STEADY_S

    async def _clean_up(self) -> None:
        """Open the store and delete expired files. Errors are only logged: chat works without files."""
        try:
            await self.open(make=False)
            if self._clock_is_steady():
                await self.sweep()
        except ApiError as error:
            self._warn_once(error)
        else:
            self._last_warning = ""

    def _warn_once(self, error: ApiError) -> None:
        """Log why files cannot be kept, unless that was the last thing logged: it may stay so for days."""
        if error.message == self._last_warning:
            return
        self._last_warning = error.message
        if error.code == "files_unavailable":
            _log.warning(
                "uploads are off: another server uses %s; to have them here, set TESSERA_DATA_DIR to another directory",
                self._root,
            )
        else:
            _log.warning("cannot clean up expired files: %s", error.message)
