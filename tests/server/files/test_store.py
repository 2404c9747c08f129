"""The store on a real disk: bounds, expiry, restarts, and that nothing half-done is ever left."""

import asyncio
import errno
import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.core.errors import ApiError, BadRequestError, NotFoundError, StorageError, TooLargeError, UnavailableError
from server.core.settings import FilesSettings
from server.files import store as store_module
from server.files.record import Record
from server.files.store import STEADY_S, FileStore
from tests.support.clock import Clock
from tests.support.images import png
from tests.support.stored import left
from tests.support.waiting import until


@asynccontextmanager
async def opened(folder: Path, clock: Clock | None = None, **settings: Any) -> AsyncIterator[FileStore]:
    store = FileStore(FilesSettings(**settings), folder, now_s=clock or Clock(1_700_000_000))
    async with store.running():
        await store.open(make=True)
        yield store


async def add(store: FileStore, tenant: str = "", data: bytes = png(), lifetime_s: int | None = None) -> Record:
    async with store.receive(tenant) as upload:
        for start in range(0, len(data), 300):
            await upload.write(data[start : start + 300])
        return await store.keep(upload, tenant, filename="a.png", purpose="vision", lifetime_s=lifetime_s)


async def refused_upload(
    store: FileStore, kind: type[ApiError], code: str | None, tenant: str = "", size: int = 1000
) -> str:
    with pytest.raises(kind) as caught:
        await add(store, tenant, png(size))
    assert caught.value.code == code
    assert "/" not in caught.value.message
    return caught.value.message


async def test_a_file_is_kept_as_it_came(tmp_path: Path) -> None:
    data = png(3_000_001)
    async with opened(tmp_path) as store:
        record = await add(store, "t", data)
        assert store.path(record, "t").read_bytes() == data
        assert await store.find(record.id, "t", param="id") == record
        assert (record.num_bytes, record.modality, record.created_at) == (3_000_001, "image", 1_700_000_000)
        assert record.expires_at == 1_700_000_000 + 30 * 86_400
        assert left(tmp_path) == [record.id]


async def test_only_the_owner_of_the_server_may_look(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        record = await add(store, "a key")
        content = store.path(record, "a key")
    assert stat.S_IMODE((tmp_path / "files").stat().st_mode) == 0o700
    assert stat.S_IMODE(content.parent.stat().st_mode) == 0o700
    assert "a key" not in str(content)


async def test_ids_cannot_be_guessed(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        ids = {(await add(store)).id for _ in range(20)}
    assert len(ids) == 20
    assert all(id_.startswith("file-") and len(id_) == 5 + 32 for id_ in ids)


async def test_a_tenant_sees_its_own_files_only(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        mine, other = await add(store, "a"), await add(store, "b")
        assert await store.all_of("a") == [mine]
        assert await store.all_of("") == []
        for tenant in ("a", ""):
            with pytest.raises(NotFoundError):
                await store.find(other.id, tenant, param="id")


async def test_files_survive_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        first, second = await add(store, "a"), await add(store, "a")
    async with opened(tmp_path, max_key_files=2) as store:
        assert await store.all_of("a") == sorted([first, second], key=lambda r: (r.created_ns, r.id))
        assert store.path(second, "a").read_bytes() == png()
        await refused_upload(store, TooLargeError, "file_quota_exceeded", "a")  # they count


async def test_a_second_server_is_kept_out(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(UnavailableError, match="another server"):
            async with opened(tmp_path):
                pass
    async with opened(tmp_path) as store:
        await add(store)


async def test_that_another_server_has_the_folder_is_logged_once_with_the_cure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.files.store.SWEEP_INTERVAL_S", 0.01)
    async with opened(tmp_path):
        async with FileStore(FilesSettings(), tmp_path).running():
            await asyncio.sleep(0.2)
    (record,) = [each for each in caplog.records if "uploads are off" in each.getMessage()]
    assert "TESSERA_DATA_DIR" in record.getMessage() and str(tmp_path) in record.getMessage()


async def test_nothing_is_made_before_the_first_upload(tmp_path: Path) -> None:
    store = FileStore(FilesSettings(), tmp_path / "data")
    async with store.running():
        await asyncio.sleep(0.05)
        assert await store.all_of("") == []
        with pytest.raises(NotFoundError):
            await store.find("file-x", "", param="id")
    assert list(tmp_path.iterdir()) == []


async def test_an_upload_that_is_cut_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, max_key_bytes=5000, max_key_files=1) as store:
        for failure in (RuntimeError("cut"), asyncio.CancelledError()):
            with pytest.raises(type(failure)):
                async with store.receive("") as upload:
                    await upload.write(png(4000))
                    await upload.flush()
                    assert left(tmp_path) != []
                    raise failure
            assert left(tmp_path) == []
        await add(store, data=png(5000))  # and nothing stays counted


async def test_what_a_crash_left_is_removed_at_the_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        record = await add(store)
    lost = tmp_path / "files" / "incoming" / "file-lost"
    lost.mkdir()
    (lost / "content").write_bytes(png())
    async with opened(tmp_path) as store:
        assert left(tmp_path) == [record.id]


async def test_a_damaged_record_is_made_anew_and_counts(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        bad, lost, good = await add(store), await add(store), await add(store)
        (store.path(bad, "").parent / "record.json").write_bytes(b"{")
        (store.path(lost, "").parent / "record.json").unlink()
    async with opened(tmp_path, expires_after_s=60) as store:
        found = {record.id: record for record in await store.all_of("")}
        assert found.keys() == {bad.id, lost.id, good.id} and found[good.id] == good
        anew = found[bad.id]
        assert (anew.num_bytes, anew.modality, anew.expires_at) == (1000, "image", anew.created_at + 60)
        assert store.num_bytes == 3000
        await store.delete(anew, "")
        assert left(tmp_path) == sorted([lost.id, good.id])


@pytest.mark.parametrize("what", ["files", "files/incoming", "files/lock"])
async def test_a_folder_that_is_taken_away_is_made_again(tmp_path: Path, what: str) -> None:
    async with opened(tmp_path) as store:
        before = await add(store)
        gone = tmp_path / what
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        after = await add(store)
        expected = [after] if what == "files" else [before, after]
        assert sorted(record.id for record in await store.all_of("")) == sorted(record.id for record in expected)
        assert left(tmp_path) == sorted(record.id for record in expected)
        other = FileStore(FilesSettings(), tmp_path)
        with pytest.raises(UnavailableError):
            await other.open(make=True)


async def test_a_clock_that_jumps_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SWEEP_INTERVAL_S", 0.01)
    clock, uptime = Clock(1_700_000_000), Clock(100)

    def pass_time(seconds: float) -> None:
        clock.now_s += seconds
        uptime.now_s += seconds

    store = FileStore(FilesSettings(expires_after_s=86_400), tmp_path, now_s=clock, uptime_s=uptime)
    async with store.running():
        record = await add(store)
        pass_time(STEADY_S)
        clock.now_s += 31 * 86_400  # it is wrong now
        await asyncio.sleep(0.1)
        assert left(tmp_path) == [record.id] and await store.all_of("") == []
        pass_time(STEADY_S - 1)
        await asyncio.sleep(0.1)
        assert left(tmp_path) == [record.id]
        clock.now_s -= 31 * 86_400  # it is right again
        await asyncio.sleep(0.1)
        assert await store.all_of("") == [record]
        pass_time(86_400)  # and nothing jumps while this passes
        await until(lambda: left(tmp_path) == [])


async def test_who_keeps_prepared_media_hears_of_deletions(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        heard: list[Path] = []
        store.on_delete(heard.append)
        record = await add(store)
        await store.delete(record, "")
        assert heard == [store.path(record, "")]


async def test_files_of_no_known_key_are_counted(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await add(store, "alice")
        await add(store, "bob")
        assert [store.num_orphaned(tenants) for tenants in (["alice", "bob"], ["alice"], [""])] == [0, 1, 2]


async def test_bounds_hold(tmp_path: Path) -> None:
    bounds: dict[str, Any] = {
        "max_file_bytes": 4000,
        "max_key_bytes": 6000,
        "max_total_bytes": 9000,
        "max_key_files": 3,
    }
    async with opened(tmp_path, **bounds) as store:
        assert "4000 bytes (files.max_file_bytes)" in await refused_upload(
            store, TooLargeError, "file_too_large", size=4001
        )
        kept = await add(store, "a", png(4000))
        message = await refused_upload(store, TooLargeError, "file_quota_exceeded", "a", 2001)
        assert "6000 bytes (files.max_key_bytes)" in message
        await add(store, "a", png(1000))
        await add(store, "b", png(4000))
        message = await refused_upload(store, StorageError, "storage_full", "c", 1000)
        assert "9000 bytes (files.max_total_bytes)" in message
        await store.delete(kept, "a")
        await add(store, "c", png(3000))
        for _ in range(2):
            await add(store, "a", png(100))
        message = await refused_upload(store, TooLargeError, "file_quota_exceeded", "a", 100)
        assert "has 3 files; the limit is 3 (files.max_key_files)" in message


async def test_bytes_count_while_they_arrive(tmp_path: Path) -> None:
    async with opened(tmp_path, max_key_bytes=1500) as store, store.receive("a") as first:
        await first.write(png(1000))
        await refused_upload(store, TooLargeError, "file_quota_exceeded", "a", 501)
        await add(store, "a", png(500))


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "empty_file"), (b"hello", "unsupported_file"), (b"%PDF-1.7 and so on", "unsupported_file")],
)
async def test_files_that_are_neither_image_nor_video_are_rejected(tmp_path: Path, data: bytes, code: str) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(BadRequestError) as caught:
            await add(store, data=data)
        assert (caught.value.param, caught.value.code) == ("file", code)
        assert left(tmp_path) == []


async def test_an_expired_file_is_gone_at_once_and_swept_later(tmp_path: Path) -> None:
    clock = Clock(1_700_000_000)
    async with opened(tmp_path, clock, max_key_files=2, expires_after_s=7200) as store:
        short, long = await add(store, lifetime_s=3600), await add(store, lifetime_s=100_000)
        assert (short.expires_at, long.expires_at) == (1_700_003_600, 1_700_007_200)
        clock.now_s += 3599.5
        await store.sweep()
        assert len(await store.all_of("")) == 2
        clock.now_s += 0.5
        assert await store.all_of("") == [long]
        with pytest.raises(NotFoundError):
            await store.find(short.id, "", param="id")
        assert left(tmp_path) == sorted([short.id, long.id])
        await store.sweep()
        assert left(tmp_path) == [long.id]
        await add(store)


async def test_what_expired_while_no_server_ran_is_swept_once_the_clock_is_known_to_be_steady(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SWEEP_INTERVAL_S", 0.01)
    clock, uptime = Clock(1_700_000_000), Clock(100)
    async with opened(tmp_path, clock) as store:
        record = await add(store)
    clock.now_s += 31 * 86_400
    store = FileStore(FilesSettings(), tmp_path, now_s=clock, uptime_s=uptime)
    async with store.running():
        await asyncio.sleep(0.1)
        assert left(tmp_path) == [record.id]
        clock.now_s += STEADY_S
        uptime.now_s += STEADY_S
        await until(lambda: left(tmp_path) == [])


async def test_two_who_delete_the_same_file_do_not_collide(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        record = await add(store)
        await asyncio.gather(store.delete(record, ""), store.delete(record, ""))
        assert left(tmp_path) == []


async def test_a_reader_reads_on_while_the_file_is_deleted(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        record = await add(store)
        with store.path(record, "").open("rb") as file:
            await store.delete(record, "")
            assert file.read() == png()


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(errno.ENOSPC, "storage_full", "is full"), (errno.EROFS, "storage_unavailable", "Read-only")],
)
async def test_a_disk_that_refuses_is_said_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str, words: str
) -> None:
    def write(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    async with opened(tmp_path) as store:
        monkeypatch.setattr("server.files.durable.os.write", write)
        assert words in await refused_upload(store, StorageError, code)
        monkeypatch.undo()
        assert left(tmp_path) == []
        await add(store)


async def test_a_file_the_disk_does_not_let_go_of_stays_visible_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(*_: object) -> Path:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    clock = Clock(1_700_000_000)
    async with opened(tmp_path, clock, max_key_files=1) as store:
        record = await add(store)
        with monkeypatch.context() as broken:
            broken.setattr(Path, "rename", rename)
            for _ in range(2):
                with pytest.raises(StorageError):
                    await store.delete(record, "")
            assert await store.find(record.id, "", param="id") == record
            assert store.path(record, "").read_bytes() == png()
            await refused_upload(store, TooLargeError, "file_quota_exceeded")
        await store.delete(record, "")
        assert left(tmp_path) == []
        await add(store)


async def test_a_sweep_goes_on_past_a_file_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1_700_000_000)
    async with opened(tmp_path, clock, expires_after_s=60) as store:
        stubborn, other = await add(store), await add(store)
        rename = Path.rename

        def refuse(path: Path, target: Path) -> Path:
            if path.name == stubborn.id:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return rename(path, target)

        clock.now_s += 60
        with monkeypatch.context() as broken:
            broken.setattr(Path, "rename", refuse)
            with pytest.raises(StorageError):
                await store.sweep()
        assert left(tmp_path) == [stubborn.id] != [other.id]
        assert store.num_files == 1
        await store.sweep()
        assert left(tmp_path) == []


async def test_a_directory_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    store = FileStore(FilesSettings(), tmp_path / "taken")
    async with store.running():
        assert "data_dir" in await refused_upload(store, StorageError, "storage_unavailable")


def test_a_home_directory_is_expanded() -> None:
    assert "~" not in str(FileStore(FilesSettings(), Path("~/x"))._root)
