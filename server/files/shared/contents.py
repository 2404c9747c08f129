"""Contents of shared files: an object store behind fsspec (a mounted directory, S3), and copies on this machine.

    STORE/OWNER/ID             in the object store
    CACHE/OWNER/ID             a copy, which was compared with the file's digest when it was fetched
    CACHE/incoming/…           while it arrives

The library is an extra and loaded only where TESSERA_FILES__STORE is set. Credentials are found by it (environment,
`~/.aws`, the machine's role). Its errors may name addresses and accounts, so only their kinds are logged.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from server.core.concurrency import run_to_completion
from server.core.errors import NotFoundError, UnavailableError
from server.core.shared_state import SharedStateError

INCOMING = "incoming"
PARALLEL_TRANSFERS = 8
ANSWER_S = 10.0
"""Time for an operation, so that a request gets its error before its client gives up; each byte adds to it."""
LEAST_BYTES_PER_S = 2 << 20
_S3 = {"use_listings_cache": False, "config_kwargs": {"connect_timeout": 3}}
_log = logging.getLogger("tessera.files")


class Contents:
    """The contents of files, by owner and id.

    Args:
        url: of the store: `s3://BUCKET/PREFIX`, or a directory that all servers have mounted.
        cache: a directory of this machine for copies.
        max_cached_bytes: size of all copies together.

    Raises:
        SharedStateError: the library for such a URL is missing.
    """

    def __init__(self, url: str, cache: Path, *, max_cached_bytes: int) -> None:
        is_s3 = urlsplit(url).scheme == "s3"
        try:
            from fsspec.core import url_to_fs

            self._store, self._base = url_to_fs(url, **(_S3 if is_s3 else {"auto_mkdir": True}))
        except (ImportError, ValueError) as error:
            raise SharedStateError(
                "files.store must be s3://BUCKET/PREFIX or a directory, and needs the extra 'shared': "
                "pip install 'tessera-serve[shared]'."
            ) from error
        self.cache = cache
        self._max_cached_bytes = max_cached_bytes
        self._fetching: dict[str, asyncio.Task[Path]] = {}
        self._verified: set[Path] = set()
        self._places = asyncio.Semaphore(PARALLEL_TRANSFERS)

    def path(self, owner: str, file_id: str) -> Path:
        """Where the copy is, if there is one."""
        return self.cache / owner / file_id

    def copies(self) -> list[Path]:
        """All copies; blocks."""
        return [path for path in self.cache.glob("*/*") if path.parent.name != INCOMING]

    async def put(self, owner: str, file_id: str, arrived: Path) -> None:
        """Store a file that has arrived, which becomes the copy.

        Args:
            owner: of the file.
            file_id: its id.
            arrived: the complete content, on the file system of the copies.

        Raises:
            UnavailableError: the store cannot be reached.
        """
        try:
            await self._run("put_file", str(arrived), self._key(owner, file_id), num_bytes=arrived.stat().st_size)
        except NotFoundError as error:
            _log.error("there is no such bucket or directory as files.store says")
            raise _unavailable() from error
        await run_to_completion(lambda: self._adopt(arrived, self.path(owner, file_id)))
        await run_to_completion(self._make_room)

    async def get(self, owner: str, file_id: str, digest: str, num_bytes: int) -> Path:
        """A copy of the content, fetched unless it is there.

        Args:
            owner: of the file.
            file_id: its id.
            digest: its SHA-256.
            num_bytes: its size.

        Raises:
            NotFoundError: the store has none.
            UnavailableError: the store cannot be reached, or what it has is not what was uploaded.
        """
        task = self._fetching.get(file_id)
        if task is None:
            task = self._fetching[file_id] = asyncio.create_task(self._copy(owner, file_id, digest, num_bytes))
            task.add_done_callback(lambda _: self._fetching.pop(file_id, None))
        return await asyncio.shield(task)

    async def remove(self, owner: str, file_id: str) -> None:
        """Delete a content from the store, and the copy.

        Raises:
            UnavailableError: the store cannot be reached.
        """
        await self.forget(self.path(owner, file_id))
        with contextlib.suppress(NotFoundError):
            await self._run("rm_file", self._key(owner, file_id))

    async def forget(self, copy: Path) -> None:
        """Delete a copy."""
        self._verified.discard(copy)
        await run_to_completion(lambda: copy.unlink(missing_ok=True))

    async def _copy(self, owner: str, file_id: str, digest: str, num_bytes: int) -> Path:
        path = self.path(owner, file_id)
        if await run_to_completion(lambda: self._has(path, digest)):
            return path
        arriving = self.cache / INCOMING / secrets.token_hex(16)
        try:
            await run_to_completion(lambda: arriving.parent.mkdir(mode=0o700, parents=True, exist_ok=True))
            await self._run("get_file", self._key(owner, file_id), str(arriving), num_bytes=num_bytes)
            if await run_to_completion(lambda: sha256(arriving)) != digest:
                _log.error("the store of uploaded files has another content than was uploaded: %s", file_id)
                raise _unavailable()
            await run_to_completion(lambda: self._adopt(arriving, path))
            await run_to_completion(self._make_room)
            return path
        finally:
            await run_to_completion(lambda: arriving.unlink(missing_ok=True))

    def _has(self, path: Path, digest: str) -> bool:
        """Whether the copy is there and right; one of an earlier life of the server is compared again."""
        try:
            os.utime(path)  # the least recently used are deleted first
        except FileNotFoundError:
            return False
        if path not in self._verified and sha256(path) != digest:
            path.unlink(missing_ok=True)
            return False
        self._verified.add(path)
        return True

    def _adopt(self, arrived: Path, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        arrived.rename(path)
        self._verified.add(path)

    def _make_room(self) -> None:
        """Delete the copies that were not used for longest, but never the latest one."""
        facts = []
        for path in self.copies():
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                facts.append((stat.st_mtime_ns, stat.st_size, path))
        num_bytes = sum(size for _, size, _ in facts)
        for _, size, path in sorted(facts)[:-1]:
            if num_bytes <= self._max_cached_bytes:
                return
            path.unlink(missing_ok=True)
            self._verified.discard(path)
            num_bytes -= size

    def _key(self, owner: str, file_id: str) -> str:
        return f"{self._base}/{owner}/{file_id}"

    async def _run(self, operation: str, *arguments: str, num_bytes: int = 0) -> None:
        """Run an operation of the store, in a thread and within a time that its bytes allow."""
        async with self._places:
            with _store_errors():
                await run_to_completion(lambda: self._run_now(operation, arguments, num_bytes))

    def _run_now(self, operation: str, arguments: tuple[str, ...], num_bytes: int) -> None:
        if not self._store.async_impl:  # a directory
            getattr(self._store, operation)(*arguments)
            return
        from fsspec.asyn import sync

        timeout_s = ANSWER_S + num_bytes / LEAST_BYTES_PER_S
        sync(self._store.loop, getattr(self._store, f"_{operation}"), *arguments, timeout=timeout_s)


def sha256(path: Path) -> str:
    """Hex digest of a file's content; blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    """Raise the library's errors, of whatever kind, as API errors."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError("No such File object: it has been deleted", param="id", code="file_not_found") from error
    except Exception as error:
        _log.error("the store of uploaded files (files.store) cannot be used: %s", _kind(error))
        raise _unavailable() from None


def _kind(error: Any) -> str:
    return f"{type(error).__module__}.{type(error).__name__}"


def _unavailable() -> UnavailableError:
    return UnavailableError("The store of uploaded files cannot be reached (files.store).", code="files_unavailable")
