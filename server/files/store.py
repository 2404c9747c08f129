"""Uploaded files on disk: a folder per tenant, a folder per file.

    DATA/files/lock                       held by the server that uses the folder
    DATA/files/incoming/ID/content        while it arrives
    DATA/files/TENANT/ID/content          once complete: the folder is renamed
    DATA/files/TENANT/ID/record.json

A rename makes a file appear and vanish whole. What a crash leaves lies in `incoming/`, which is emptied at the start.
Records are held in memory; everything that touches the disk runs in a thread.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import msgspec

from model_executor.fair_queue import FairQueue
from server.core.concurrency import forever, in_thread
from server.core.errors import ApiError, BadRequestError, NotFoundError, StorageError
from server.core.mime import HEAD_BYTES, modality_of
from server.core.settings import FilesSettings
from server.files.durable import sync_folder, translated, write_new
from server.files.quota import Ledger
from server.files.record import Purpose, Record
from server.files.upload import Upload

SWEEP_INTERVAL_S = 60.0
"""How often expired files are deleted; they cannot be seen from the second they expire."""

MAX_CLOCK_STEP_S = 60.0
"""A clock that is set by more than this may be wrong."""
STEADY_S = 600.0
"""How long a clock must have gone steadily, since the start or since it was set, before files are deleted by it."""
MAX_UPLOADS = 16
"""Files that arrive at a time, of one client half as many."""

_CONTENT, _RECORD, _INCOMING, _LOCK = "content", "record.json", "incoming", "lock"
_log = logging.getLogger(__name__)


def uptime_s() -> float:
    """Seconds since the machine was started, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class FileStore:
    """The uploaded files of all tenants.

    Args:
        settings: the bounds.
        data_folder: below which they lie; made with the first upload.
        now_s: the clock, in seconds since 1970.
        uptime_s: a clock that nobody sets and that goes on while the machine sleeps, in seconds.
    """

    def __init__(
        self,
        settings: FilesSettings,
        data_folder: Path,
        *,
        now_s: Callable[[], float] = time.time,
        uptime_s: Callable[[], float] = uptime_s,
    ) -> None:
        """See the class."""
        self._uptime_s = uptime_s
        self._steady_since_s = uptime_s()
        self._offset_s = now_s() - self._steady_since_s
        self._on_delete: Callable[[Path], None] = lambda _: None
        self._settings = settings
        self._folder = Path(os.path.expanduser(data_folder)).absolute() / "files"
        self._now_s = now_s
        self._ledger = Ledger(settings)
        self._lock: int | None = None
        self._opening = asyncio.Lock()
        self._discarding = asyncio.Lock()
        self._places = FairQueue(MAX_UPLOADS, max_per_client=MAX_UPLOADS // 2, max_waiting=4 * MAX_UPLOADS)
        self._records: dict[str, dict[str, Record]] = {}

    @property
    def num_files(self) -> int:
        """Files of all tenants, for metrics."""
        return self._ledger.num_files

    @property
    def num_bytes(self) -> int:
        """Bytes of all tenants' files, for metrics."""
        return self._ledger.num_bytes

    def on_delete(self, forget: Callable[[Path], None]) -> None:
        """Have `forget` called with the path of each file's content once the file is deleted."""
        self._on_delete = forget

    def num_strange(self, tenants: Iterable[str]) -> int:
        """Files that belong to none of these tenants, and that nobody can name therefore until they expire."""
        known = set(map(_owner, tenants))
        return sum(len(records) for owner, records in self._records.items() if owner not in known)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read what is there, delete what expires; on leaving, let go of the folder."""
        await self._look_after()
        sweeping = asyncio.create_task(forever(self._sweep_again_and_again, "the deletion of expired files"))
        try:
            yield
        finally:
            sweeping.cancel()
            await asyncio.wait({sweeping})
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    async def open(self, *, make: bool) -> None:
        """Take the folder and read it; nothing where that was done already.

        Args:
            make: whether to make it where it is missing.

        Raises:
            UnavailableError: another server has it.
            StorageError: it cannot be used.
        """
        async with self._opening:
            with translated():
                await in_thread(lambda: self._take_folder(make=make))

    def get(self, file_id: str, tenant: str) -> Record | None:
        """The tenant's file of that id; None where it has no such file, or no more."""
        record = self._records.get(_owner(tenant), {}).get(file_id)
        return None if record is None or record.expires_at <= self._now_s() else record

    def find(self, file_id: str, tenant: str, *, param: str) -> Record:
        """The file of that id.

        Args:
            file_id: its id.
            tenant: whose it must be.
            param: the request field, for the error.

        Raises:
            NotFoundError: the tenant has no such file, or no more.
        """
        record = self.get(file_id, tenant)
        if record is None:
            raise NotFoundError(f"No such File object: {file_id[:100]}", param=param)
        return record

    def path(self, record: Record, tenant: str) -> Path:
        """Where the content lies; gone when the file is deleted meanwhile."""
        return self._folder / _owner(tenant) / record.id / _CONTENT

    def all_of(self, tenant: str) -> list[Record]:
        """All files of a tenant, oldest first."""
        now_s = self._now_s()
        records = list(self._records.get(_owner(tenant), {}).values())
        return sorted((record for record in records if record.expires_at > now_s), key=lambda r: (r.created_ns, r.id))

    @contextlib.asynccontextmanager
    async def receive(self, tenant: str) -> AsyncIterator[Upload]:
        """Room for a file that arrives; unless `keep` is called before this is left, nothing of it stays.

        Raises:
            TooLargeError: the tenant has as many files as it may.
            UnavailableError: as `open`.
            StorageError: as `open`.
        """
        async with self._places.place():
            async with self._received(tenant) as upload:
                yield upload

    @contextlib.asynccontextmanager
    async def _received(self, tenant: str) -> AsyncIterator[Upload]:
        await self.open(make=True)
        owner = _owner(tenant)
        self._ledger.add_file(owner)
        folder = self._folder / _INCOMING / f"file-{secrets.token_urlsafe(24)}"
        upload: Upload | None = None
        try:
            with translated():
                await in_thread(lambda: folder.mkdir(mode=0o700))
                upload = Upload(
                    folder / _CONTENT,
                    max_bytes=self._settings.max_file_bytes,
                    count=lambda num_bytes: self._ledger.add_bytes(owner, num_bytes),
                )
            yield upload
        finally:
            if upload is not None:
                upload.close()
            if folder.name not in self._records.get(owner, {}):
                self._ledger.remove(owner, upload.num_bytes if upload else 0)
                await in_thread(lambda: shutil.rmtree(folder, ignore_errors=True))

    async def keep(
        self, upload: Upload, tenant: str, *, filename: str, purpose: Purpose, lifetime_s: int | None
    ) -> Record:
        """Make a file of an upload that has come whole.

        Args:
            upload: what has come.
            tenant: whose it is.
            filename: as the client has it.
            purpose: as the client has it.
            lifetime_s: how long the client wants it kept; None for as long as the server does.

        Raises:
            BadRequestError: it is empty, or neither a picture nor a clip.
            StorageError: the disk is full.
        """
        if not upload.num_bytes:
            raise BadRequestError("The file is empty (0 bytes).", param="file")
        modality = modality_of(upload.head)
        if modality is None:
            raise BadRequestError("The file is neither a picture nor a clip of a known kind.", param="file")
        now_s = self._now_s()
        longest_s = self._settings.lifetime_s
        record = Record(
            id=upload.path.parent.name,
            filename=filename,
            purpose=purpose,
            num_bytes=upload.num_bytes,
            created_ns=int(now_s * 1e9),
            expires_at=int(now_s) + min(longest_s, longest_s if lifetime_s is None else lifetime_s),
            modality=modality,
        )
        await upload.flush()
        with translated():
            await in_thread(lambda: self._settle(upload, record, _owner(tenant)))
        return record

    async def delete(self, record: Record, tenant: str) -> None:
        """Delete a file; who has it open reads on.

        Raises:
            StorageError: the disk refuses.
        """
        await self._discard(_owner(tenant), record)

    async def sweep(self) -> None:
        """Delete what has expired.

        Raises:
            StorageError: the disk refuses to delete some of it, which stays as it is; the rest is deleted.
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
        gone = self._folder / _INCOMING / secrets.token_urlsafe(24)
        async with self._discarding:
            if record.id not in self._records.get(owner, {}):
                return  # two requests delete the same file
            with translated():
                await in_thread(lambda: self._forget(owner, record, gone))
        self._on_delete(self._folder / owner / record.id / _CONTENT)
        await in_thread(lambda: shutil.rmtree(gone, ignore_errors=True))  # else it goes at the next start

    def _forget(self, owner: str, record: Record, gone: Path) -> None:
        """On disk first, then in memory: what the disk does not let go of stays visible, and can be deleted again."""
        gone.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # somebody else has removed it
            (self._folder / owner / record.id).rename(gone)
        del self._records[owner][record.id]
        self._ledger.remove(owner, record.num_bytes)

    def _take_folder(self, *, make: bool) -> None:
        if self._lock is not None:
            if self._has_lock():
                (self._folder / _INCOMING).mkdir(mode=0o700, exist_ok=True)  # cleaners of temporary files take it away
                return
            _log.warning("the folder of uploaded files was removed or replaced; what is there now is read")
            os.close(self._lock)
            self._lock = None
            self._records, self._ledger = {}, Ledger(self._settings)
        if not make and not self._folder.is_dir():
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            incoming = self._folder / _INCOMING
            if incoming.is_dir():
                shutil.rmtree(incoming)
            incoming.mkdir(mode=0o700)
            self._read_records()
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def _has_lock(self) -> bool:
        """Whether the file that is locked is still the one in the folder."""
        assert self._lock is not None
        try:
            return os.path.samestat(os.fstat(self._lock), os.stat(self._folder / _LOCK))
        except FileNotFoundError:
            return False

    def _read_records(self) -> None:
        self._records, self._ledger = {}, Ledger(self._settings)
        for path in self._folder.glob(f"*/*/{_CONTENT}"):
            try:
                record = msgspec.json.decode((path.parent / _RECORD).read_bytes(), type=Record)
            except (msgspec.DecodeError, FileNotFoundError) as error:
                _log.warning("the record of an uploaded file is made anew, as it cannot be read: %s", error)
                record = self._made_anew(path)
            owner = path.parent.parent.name
            self._records.setdefault(owner, {})[record.id] = record
            self._ledger.load(owner, record.num_bytes)

    def _made_anew(self, content: Path) -> Record:
        """A record from what the disk knows of a file, so that it is counted, can be deleted, and expires."""
        facts = content.stat()
        with content.open("rb") as file:
            modality = modality_of(file.read(HEAD_BYTES))
        return Record(
            id=content.parent.name,
            filename="unknown",
            purpose="user_data",
            num_bytes=facts.st_size,
            created_ns=facts.st_mtime_ns,
            expires_at=int(facts.st_mtime) + self._settings.lifetime_s,
            modality=modality or "image",
        )

    def _settle(self, upload: Upload, record: Record, owner: str) -> None:
        """On disk and in memory in one go, so that a request cancelled meanwhile leaves both or neither."""
        upload.settle()
        write_new(upload.path.parent / _RECORD, msgspec.json.encode(record))
        home = self._folder / owner
        home.mkdir(mode=0o700, exist_ok=True)
        for folder in (upload.path.parent, self._folder):
            sync_folder(folder)
        upload.path.parent.rename(home / record.id)
        sync_folder(home)
        self._records.setdefault(owner, {})[record.id] = record

    async def _sweep_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            await self._look_after()

    def _clock_is_steady(self) -> bool:
        """Whether the clock has told the same time as the machine's uptime for a while: a wrong one deletes nothing."""
        uptime_s = self._uptime_s()
        offset_s = self._now_s() - uptime_s
        if abs(offset_s - self._offset_s) > MAX_CLOCK_STEP_S:
            _log.warning("the clock was set by %.0f s; expired files are kept for now", offset_s - self._offset_s)
            self._offset_s, self._steady_since_s = offset_s, uptime_s
        return uptime_s - self._steady_since_s >= STEADY_S

    async def _look_after(self) -> None:
        """Chat goes on without files; who asks for them hears why they are not there."""
        try:
            await self.open(make=False)
            if self._clock_is_steady():
                await self.sweep()
        except ApiError as error:
            _log.warning("uploaded files cannot be looked after: %s", error.message)


def _owner(tenant: str) -> str:
    """Name of the tenant's folder, which tells nothing about the key."""
    return hashlib.sha256(b"tessera-files\0" + tenant.encode()).hexdigest()[:32]
