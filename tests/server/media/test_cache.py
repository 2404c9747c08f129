"""The cache of prepared media: what shares an entry and what never does, who waits for whom, and what makes room.

First the cache by itself, over work that ends on command; then the whole service with real workers.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from server.core.errors import BadRequestError, DeadlineError, RateLimitError
from server.media.cache import CachedMedia, CacheLease, MediaCache
from server.media.errors import MediaError
from server.media.messages import Prepared
from server.media.preprocessor import MediaPreprocessor
from server.media.progress import FrameCount, Progress
from server.media.shared_memory import SharedDirectory
from server.media.types import MediaPart, PreparedMedia
from tests.support.images import data_url, encoded
from tests.support.media_service import PHOTO, VIDEO, files, image_part, running, video_part
from tests.support.videos import real_video
from tests.support.waiting import until

PREPARED = Prepared(grid=(1, 2, 2), source_size=(28, 28), size=(28, 28))
FLIPPED = encoded(Image.fromarray(skimage.data.astronaut()[::-1]), "JPEG")


class Bench:
    """A cache of 1000 bytes over a real folder of 2000, and work that ends on command."""

    def __init__(self, root: Path) -> None:
        self.cache = MediaCache(1000)
        self.folder = SharedDirectory(root, 2000, self.cache.reclaim)
        self.started: list[str] = []
        self.inputs: list[str] = []
        """Keys of inputs that are still held."""
        self.ends: dict[str, asyncio.Future[None]] = {}

    def hold(self, key: str, num_bytes: int = 400) -> CacheLease:
        async def work(_: FrameCount) -> CachedMedia:
            self.started.append(key)
            end = self.ends[key] = asyncio.get_running_loop().create_future()
            with ExitStack() as until_failed:
                patches = self.folder.create_file(num_bytes)
                until_failed.callback(patches.release)
                await end
                until_failed.pop_all()
                return CachedMedia(PREPARED, patches)

        inputs = ExitStack()
        self.inputs.append(key)
        inputs.callback(self.inputs.remove, key)
        return self.cache.lease(key, work, inputs)

    def begin(self, key: str, num_bytes: int = 400) -> "asyncio.Task[CachedMedia]":
        return asyncio.create_task(self.hold(key, num_bytes).ready())

    async def kept(self, key: str, num_bytes: int = 400) -> Path:
        """Prepare an entry and let go of it."""
        hold = self.hold(key, num_bytes)
        await asyncio.sleep(0)
        if key in self.ends and not self.ends[key].done():
            self.ends[key].set_result(None)
        media = await hold.ready()
        hold.release()
        hold.release()
        return media.patches.path

    def names(self) -> list[str]:
        return sorted(self.cache._entries)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    assert bench.inputs == []
    bench.folder.close()


async def test_what_is_there_is_not_prepared_again(bench: Bench) -> None:
    path = await bench.kept("a")
    assert await bench.kept("a") == path
    assert bench.started == ["a"]
    load = bench.cache.load
    assert (load.num_hits, load.num_misses, load.num_evictions, load.idle_bytes) == (1, 1, 0, 400)


async def test_the_entry_unused_for_longest_makes_room(bench: Bench) -> None:
    paths = {key: await bench.kept(key) for key in ("a", "b")}
    await bench.kept("a")
    await bench.kept("c")
    assert bench.names() == ["a", "c"]
    assert (paths["a"].exists(), paths["b"].exists()) == (True, False)
    assert (bench.cache.load.num_evictions, bench.cache.load.idle_bytes, bench.folder.used_bytes) == (1, 800, 800)


async def test_an_entry_in_use_is_never_given_up(bench: Bench) -> None:
    path = await bench.kept("held")
    held = bench.hold("held")
    for number in range(5):
        await bench.kept(f"other {number}")
    assert bench.cache.reclaim(10_000) == 800
    assert path.exists() and bench.names() == ["held"]
    held.release()
    assert path.exists() and bench.cache.load.idle_bytes == 400
    assert bench.cache.reclaim(1) == 400
    assert not path.exists() and bench.folder.used_bytes == 0


async def test_an_entry_above_the_bound_goes_at_once_and_moves_nothing_else_out(bench: Bench) -> None:
    await bench.kept("small")
    large = await bench.kept("large", 1001)
    assert not large.exists() and bench.names() == ["small"]


async def test_work_takes_the_memory_of_idle_entries(bench: Bench) -> None:
    await bench.kept("a")
    await bench.kept("b")
    work = bench.begin("c", 1700)
    await asyncio.sleep(0)
    assert bench.names() == ["c"] and bench.folder.used_bytes == 1700
    with pytest.raises(RateLimitError):
        await bench.hold("d").ready()
    work.cancel()
    await asyncio.wait({work})
    assert bench.folder.used_bytes == 0


async def test_two_who_ask_at_once_wait_for_one_work(bench: Bench) -> None:
    waiting = [bench.begin("a") for _ in range(3)]
    await until(lambda: bench.started)
    assert bench.started == ["a"] and bench.inputs == ["a"]
    bench.ends["a"].set_result(None)
    first, *others = await asyncio.gather(*waiting)
    assert all(other is first for other in others)


@pytest.mark.parametrize("leaver", [0, 1])
async def test_whoever_leaves_does_not_take_the_work_along(bench: Bench, leaver: int) -> None:
    waiting = [bench.begin("a") for _ in range(2)]
    await until(lambda: bench.started)
    gone = waiting.pop(leaver)
    gone.cancel()
    await asyncio.wait([gone])
    bench.ends["a"].set_result(None)
    assert (await waiting[0]).patches.path.exists()
    assert bench.started == ["a"]


@pytest.mark.parametrize("num_turns", range(1, 6))
async def test_work_ends_when_the_last_one_leaves_and_gives_everything_back(bench: Bench, num_turns: int) -> None:
    waiting = [bench.begin("a") for _ in range(2)]
    for _ in range(num_turns):
        await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert all(task.cancelled() for task in waiting)
    assert bench.names() == [] and bench.folder.used_bytes == 0 and bench.inputs == []
    await bench.kept("a")


async def test_leaving_in_the_moment_it_is_done_keeps_it(bench: Bench) -> None:
    hold = bench.hold("a")
    await asyncio.sleep(0)
    bench.ends["a"].set_result(None)
    async with asyncio.timeout(60):
        while not hold._entry.work.done():
            await asyncio.sleep(0)
    hold.release()
    assert await bench.kept("a") and bench.started == ["a"]


async def test_whoever_comes_after_the_last_one_left_starts_anew(bench: Bench) -> None:
    first = bench.begin("a")
    await until(lambda: bench.started)
    first.cancel()
    await asyncio.sleep(0)
    second = bench.begin("a")
    await until(lambda: len(bench.started) == 2)
    assert bench.started == ["a", "a"]
    bench.ends["a"].set_result(None)
    await second
    assert first.cancelled() and bench.folder.used_bytes == 400


async def test_a_failure_reaches_all_who_wait_and_is_not_kept(bench: Bench) -> None:
    waiting = [bench.begin("a") for _ in range(2)]
    await until(lambda: bench.started)
    bench.ends["a"].set_exception(MediaError("media_parse_error", "no"))
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [MediaError] * 2
    assert bench.names() == [] and bench.folder.used_bytes == 0
    await bench.kept("a")
    assert bench.started == ["a", "a"]


@pytest.fixture(scope="module")
async def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
async def service(root: Path) -> AsyncIterator[MediaPreprocessor]:
    async with running(root, max_cache_bytes=1 << 30) as service:
        yield service


def num_jobs(service: MediaPreprocessor) -> int:
    return sum(worker.num_jobs for worker in service._pool._workers)


async def prepare(service: MediaPreprocessor, *parts: MediaPart, tenant: str = "t") -> list[PreparedMedia]:
    """Prepare and release."""
    prepared = await service.prepare(parts, tenant)
    for media in prepared:
        media.release()
    return prepared


@pytest.mark.parametrize("part", [image_part(PHOTO), video_part(VIDEO)], ids=["image", "video"])
async def test_repeated_media_cost_no_decoding(service: MediaPreprocessor, part: MediaPart) -> None:
    [first] = await prepare(service, part)
    patches = Path(first.path).read_bytes()
    before = num_jobs(service)
    again = await prepare(service, part, MediaPart(part.modality, part.source, "elsewhere"))
    assert num_jobs(service) == before
    for media in again:
        assert (media.digest, media.path, media.grid, media.size) == (
            first.digest,
            first.path,
            first.grid,
            first.size,
        )
        assert (media.frame_times_s, media.effective_fps, media.notes, media.source_size) == (
            first.frame_times_s,
            first.effective_fps,
            first.notes,
            first.source_size,
        )
    assert Path(first.path).read_bytes() == patches


async def test_only_equal_content_equal_parameters_and_one_tenant_share(service: MediaPreprocessor) -> None:
    frame = data_url(encoded(Image.fromarray(np.zeros((56, 56, 3), np.uint8)), "PNG"))
    prepared = [
        *await prepare(service, image_part(PHOTO), image_part(FLIPPED)),
        *await prepare(service, image_part(PHOTO), tenant="somebody else"),
        *await prepare(service, image_part(PHOTO, max_pixels=100_000)),
        *await prepare(service, video_part(VIDEO, fps=1.0), video_part(VIDEO, fps=2.0)),
        *await prepare(service, video_part(VIDEO, fps=2.0), tenant="somebody else"),
        *await prepare(service, MediaPart("image", frame, "p"), MediaPart("video", (frame,), "v")),
        *await prepare(service, MediaPart("video", (frame, frame), "v")),
    ]
    assert prepared[0].grid == prepared[1].grid
    assert len({media.digest for media in prepared}) == len(prepared)
    assert len({media.path for media in prepared}) == len(prepared)
    assert Path(prepared[0].path).read_bytes() != Path(prepared[1].path).read_bytes()


async def test_a_limit_spelled_out_shares_with_the_same_limit_by_default(service: MediaPreprocessor) -> None:
    [one], [other] = await prepare(service, video_part(VIDEO)), await prepare(service, video_part(VIDEO, fps=2.0))
    assert one.digest == other.digest


async def test_one_decoding_serves_two_requests_though_one_client_leaves(service: MediaPreprocessor) -> None:
    part, before, hits = video_part(real_video("bigbuckbunny"), fps=4.0), num_jobs(service), service.load.cache.num_hits
    tasks = [asyncio.create_task(service.prepare([part], "t")) for _ in range(2)]
    await until(lambda: service.load.cache.num_hits == hits + 1)
    tasks[0].cancel()
    [media] = await tasks[1]
    assert tasks[0].cancelled()
    assert num_jobs(service) == before + 3  # both read the headers
    assert Path(media.path).stat().st_size == media.grid.num_patches * 1176
    media.release()


@pytest.mark.slow
async def test_all_who_wait_see_how_far_it_is(tmp_path: Path) -> None:
    async with running(tmp_path, num_workers=1) as service:
        part = video_part(real_video("bigbuckbunny"), fps=8.0)
        texts_of: list[set[str]] = [set(), set()]
        progresses = [Progress(), Progress()]
        tasks = [asyncio.create_task(service.prepare([part], "t", progress)) for progress in progresses]
        async with asyncio.timeout(60):
            while not all(task.done() for task in tasks):
                for texts, progress in zip(texts_of, progresses, strict=True):
                    texts.add(progress.text() or "")
                await asyncio.sleep(0.001)
        for task in tasks:
            for media in await task:
                media.release()
    assert texts_of[0] - {""} and texts_of[0] & texts_of[1] - {""}
    assert all(text == "" or 0 <= int(text.split()[2]) <= 100 for text in texts_of[0] | texts_of[1])
    assert [progress.text() for progress in progresses] == [None, None]


async def test_an_unusable_item_names_the_part_of_each_request(service: MediaPreprocessor) -> None:
    parts = [image_part(PHOTO[:5000], name) for name in ("first", "second")]
    for failed in await asyncio.gather(*(service.prepare([part], "t") for part in parts), return_exceptions=True):
        assert isinstance(failed, BadRequestError)
        assert failed.param == parts.pop(0).param


async def test_what_a_request_uses_stays_under_a_tiny_bound(tmp_path: Path) -> None:
    async with running(tmp_path, max_cache_bytes=1 << 20) as service:
        [held] = await service.prepare([image_part(PHOTO)], "t")
        before = Path(held.path).read_bytes()
        others = [await prepare(service, image_part(FLIPPED, max_pixels=(n + 4) * 100_000)) for n in range(3)]
        assert Path(held.path).read_bytes() == before
        assert service.load.cache.num_evictions >= 1
        assert service.load.cache.idle_bytes <= 1 << 20
        assert service.load.shared_bytes == len(before)
        assert not Path(others[0][0].path).exists()
        held.release()


async def test_cached_media_give_way_to_new_ones(tmp_path: Path) -> None:
    limits = {"max_cache_bytes": 3 << 20, "max_shared_bytes": 3 << 20, "num_workers": 1}
    async with running(tmp_path, **limits) as service:
        for number in range(9):
            await prepare(service, image_part(PHOTO, max_pixels=700_000 - number * 50_000))
        assert service.load.cache.num_evictions >= 3
        assert service.load.cache.idle_bytes == sum(map(os.path.getsize, files(tmp_path))) <= 3 << 20


@pytest.mark.slow
async def test_a_crashed_worker_takes_no_entry_along(tmp_path: Path) -> None:
    async with running(tmp_path, max_cache_bytes=1 << 30, num_workers=1) as service:
        [before] = await prepare(service, image_part(PHOTO))
        [worker] = service._pool._workers
        work = asyncio.create_task(service.prepare([video_part(real_video("bigbuckbunny"))], "t"))
        await until(lambda: service.load.num_running == 1)
        os.kill(worker.pid, signal.SIGKILL)
        [video] = await work  # it is tried once more
        video.release()
        assert service.load.num_restarts == 1
        [after] = await prepare(service, image_part(PHOTO))
        assert (after.path, service.load.cache.num_hits) == (before.path, 1)
        [other] = await prepare(service, image_part(FLIPPED))
        assert other.path != before.path


@pytest.mark.slow
async def test_a_deadline_fails_all_who_wait_and_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, max_cache_bytes=1 << 30, num_workers=1, decode_timeout_s=5) as service:
        part = video_part(real_video("bigbuckbunny"))
        tasks = [asyncio.create_task(service.prepare([part], "t")) for _ in range(2)]
        await until(lambda: service.load.cache.num_hits == 1)
        [worker] = service._pool._workers
        os.kill(worker.pid, signal.SIGSTOP)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [DeadlineError] * 2
        assert service.load.cache.idle_bytes == 0


async def test_what_was_made_of_a_deleted_file_goes_with_it(bench: Bench) -> None:
    file, other = Path("/data/a"), Path("/data/b")
    idle = await bench.kept("idle")
    lease = bench.hold("idle")
    lease.made_of(file)
    lease.release()
    used = await bench.kept("used")
    lease = bench.hold("used")
    lease.made_of(file)
    await bench.kept("another")
    bench.cache.forget_file(other)
    assert bench.names() == ["another", "used"] or idle.exists()
    bench.cache.forget_file(file)
    assert not idle.exists() and used.exists() and bench.names() == ["another"]
    lease.release()
    assert not used.exists() and bench.folder.used_bytes == 400


async def test_what_is_being_made_of_a_deleted_file_is_for_those_who_wait_only(bench: Bench) -> None:
    lease = bench.hold("a")
    lease.made_of(Path("/data/a"))
    await asyncio.sleep(0)
    bench.cache.forget_file(Path("/data/a"))
    bench.ends["a"].set_result(None)
    medium = await lease.ready()
    assert medium.patches.path.exists() and bench.names() == []
    lease.release()
    assert not medium.patches.path.exists() and bench.folder.used_bytes == 0


async def test_what_nobody_has_used_for_long_is_given_up(bench: Bench) -> None:
    path = await bench.kept("a")
    held = bench.hold("b")
    await asyncio.sleep(0)
    bench.ends["b"].set_result(None)
    await held.ready()
    bench.cache.forget_older(3600)
    assert path.exists()
    bench.cache.forget_older(0)
    assert not path.exists() and bench.names() == ["b"]
    held.release()
