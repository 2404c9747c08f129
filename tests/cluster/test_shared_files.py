"""Uploaded files that servers share, on a real Redis and both kinds of store: a mounted directory, and S3."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from server.core.errors import ApiError, NotFoundError, StorageError, TooLargeError, UnavailableError
from server.core.settings import FilesSettings
from server.core.shared_state import SharedState
from server.files.record import Record, owner_of
from server.files.shared.store import SharedFileStore
from tests.support.cluster import Part, redis_server, s3_server
from tests.support.images import png

pytestmark = pytest.mark.cluster

BUCKET = "tessera"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Part]:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as part:
        yield part


@pytest.fixture(scope="module")
def s3() -> Iterator[Part]:
    with s3_server() as part, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-tests")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{part.port}")
        make_bucket()
        yield part


def make_bucket() -> None:
    import s3fs  # type: ignore[import-not-found,import-untyped,unused-ignore]  # in the cluster's environment only

    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(BUCKET)


@pytest.fixture(params=["directory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "directory":
        return str(tmp_path / "mounted")
    request.getfixturevalue("s3")
    return f"s3://{BUCKET}/{tmp_path.name}"


class Servers:
    """Opens file stores of several servers on one store and one state."""

    def __init__(self, folder: Path, redis: Part, url: str) -> None:
        self.folder, self.redis, self.url = folder, redis, url

    @asynccontextmanager
    async def open(self, name: str, now_s: Callable[[], float] | None = None, **limits: Any) -> AsyncIterator[Any]:
        state = SharedState(SecretStr(f"redis://127.0.0.1:{self.redis.port}"))
        settings = FilesSettings(store=self.url, **limits)
        clock = {} if now_s is None else {"now_s": now_s}
        store = SharedFileStore(settings, self.folder / name, state, **clock)
        async with store.running():
            yield store
        await state.close()


@pytest.fixture
def servers(tmp_path: Path, redis: Part, url: str) -> Servers:
    return Servers(tmp_path, redis, url)


async def add(
    store: SharedFileStore, tenant: str = "a", data: bytes | None = None, lifetime_s: int | None = None
) -> Record:
    data = png() if data is None else data
    async with store.receive(tenant) as upload:
        for start in range(0, len(data), 65_536):
            await upload.write(data[start : start + 65_536])
        return await store.keep(upload, tenant, filename="a.png", purpose="vision", lifetime_s=lifetime_s)


async def read(store: SharedFileStore, file_id: str, tenant: str = "a") -> bytes:
    return (await store.content(await store.find(file_id, tenant, param="id"), tenant)).read_bytes()


async def test_a_file_is_there_on_all_servers_at_once_and_gone_at_once(servers: Servers) -> None:
    data = png(3_000_001)
    async with servers.open("one") as one, servers.open("two") as two:
        record = await add(one, data=data)
        assert await two.find(record.id, "a", param="id") == record
        assert await two.all_of("a") == [record] and await two.all_of("b") == []
        assert await asyncio.gather(*(read(two, record.id) for _ in range(4))) == [data] * 4
        with pytest.raises(NotFoundError):
            await two.find(record.id, "b", param="id")
        deleted: list[Path] = []
        two.on_delete(deleted.append)
        await one.delete(record, "a")
        with pytest.raises(NotFoundError):
            await two.find(record.id, "a", param="id")
        copy = servers.folder / "two" / "shared-files" / owner_of("a") / record.id
        assert copy.exists()
        await two.sweep()
        assert not copy.exists() and deleted == [copy]
        with pytest.raises(NotFoundError):
            await one.content(record, "a")


async def test_quotas_hold_over_all_servers(servers: Servers) -> None:
    limits: dict[str, Any] = {"max_key_files": 2, "max_key_bytes": 2500, "max_total_bytes": 4000}
    async with servers.open("one", **limits) as one, servers.open("two", **limits) as two:
        first = await add(one, data=png(1000))
        await add(two, data=png(1000))
        with pytest.raises(TooLargeError, match="2 files"):
            await add(one, data=png(100))
        await two.delete(first, "a")
        with pytest.raises(TooLargeError, match="2500 bytes"):
            await add(one, data=png(1600))
        await add(one, data=png(1400))
        with pytest.raises(StorageError, match="4000 bytes"):
            await add(two, "b", data=png(1700))
        at_once = await asyncio.gather(*(add(one, "c", png(200)) for _ in range(6)), return_exceptions=True)
        assert sum(isinstance(each, Record) for each in at_once) == 2
        assert all(isinstance(each, Record | TooLargeError) for each in at_once)
        await two.sweep()
        assert (two.num_files, two.num_bytes) == (4, 2800)


async def test_a_content_that_is_not_what_was_uploaded_is_never_used(servers: Servers, tmp_path: Path) -> None:
    async with servers.open("one") as one, servers.open("two") as two:
        record = await add(one)
        contents = one._contents
        other = tmp_path / "other"
        other.write_bytes(png(1000)[:-1] + b"!")
        contents._store.put_file(str(other), contents._key(owner_of("a"), record.id))
        with pytest.raises(UnavailableError):
            await read(two, record.id)
        copy = one._contents.path(owner_of("a"), record.id)
        copy.write_bytes(other.read_bytes())
    async with servers.open("one") as one:  # after a restart, copies are compared again
        with pytest.raises(UnavailableError):
            await read(one, record.id)


async def test_expired_files_and_unfinished_uploads_are_deleted_by_any_server(servers: Servers) -> None:
    async with servers.open("one", now_s=lambda: 1_600_000_000) as one, servers.open("two") as two:
        expired = await add(one, lifetime_s=10)
        kept = await add(two)
        await one._catalog.announce(owner_of("a"), "file-unfinished")
        path = servers.folder / "arrived"
        path.write_bytes(png())
        await one._contents.put(owner_of("a"), "file-unfinished", path)  # and then the server is killed
        assert await two._catalog.garbage() == []  # not yet
        await two._catalog._state.redis.zadd("tessera:{files}:garbage", {f"{owner_of('a')}/file-unfinished": 1})
        await two.sweep()
        assert [record.id for record in await two.all_of("a")] == [kept.id]
        for gone in (expired.id, "file-unfinished"):
            with pytest.raises(NotFoundError):
                await two._contents.get(owner_of("a"), gone, "", 0)
        assert await two._catalog.garbage() == []


async def test_only_so_much_is_kept_on_this_machine(servers: Servers) -> None:
    async with servers.open("one", max_cached_bytes=2500) as one:
        records = [await add(one, data=png(1000 + number)) for number in range(4)]
        cached = {path.name for path in one._contents.copies()}
        assert cached == {record.id for record in records[-2:]}
        assert [len(await read(one, record.id)) for record in records] == [1000, 1001, 1002, 1003]


async def test_while_the_state_is_away_files_are_503_and_nothing_is_lost(servers: Servers) -> None:
    async with servers.open("one") as one:
        record = await add(one)
        servers.redis.kill()
        for work in (one.find(record.id, "a", param="id"), one.all_of("a"), add(one), one.delete(record, "a")):
            with pytest.raises(UnavailableError) as away:
                await work
            assert (away.value.status, away.value.code) == (503, "state_unavailable")
        servers.redis.start()
        assert await one.all_of("a") == [record]
        assert await read(one, record.id) == png()
        assert await one._catalog.usage(owner_of("a")) == (1, 1000, 1, 1000)


async def test_while_the_object_store_is_away_files_are_503_and_nothing_is_lost(
    tmp_path: Path, redis: Part, s3: Part
) -> None:
    servers = Servers(tmp_path, redis, f"s3://{BUCKET}/away")
    async with servers.open("one") as one, servers.open("two") as two:
        record = await add(one)
        os.kill(s3.pid, signal.SIGSTOP)  # stopped, it keeps what it has in memory
        try:
            for work in (read(two, record.id), add(two)):
                with pytest.raises(ApiError) as away:
                    await work
                assert (away.value.status, away.value.code) == (503, "files_unavailable")
            assert await read(one, record.id) == png()  # its own copy
        finally:
            os.kill(s3.pid, signal.SIGCONT)
        assert await two.all_of("a") == [record]
        assert await read(two, record.id) == png()
        await add(two)


async def test_credentials_are_in_no_log(
    tmp_path: Path, redis: Part, s3: Part, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    async with Servers(tmp_path, redis, "s3://no-such-bucket/x").open("one") as one:
        with pytest.raises(ApiError) as refused:
            await add(one)
    assert "a-secret-of-tests" not in caplog.text + refused.value.message
    assert "files.store" in caplog.text
