"""Real worker processes: order, bounds, deadlines, and what becomes of those that fail.

A job that hangs is one whose input is a pipe nobody writes to.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_executor.fair_queue import CLIENT
from server.core.errors import DeadlineError, RateLimitError, UnavailableError
from server.core.settings import MediaSettings
from server.media.errors import MediaError
from server.media.messages import ImageBudget, Job, Prepared
from server.media.timings import StageTimes
from server.media.workers import pool
from server.media.workers.main import NICENESS
from server.media.workers.pool import MediaPool
from server.media.workers.queue import LARGE_JOB_S
from tests.support.waiting import until, wait_until

pytestmark = pytest.mark.slow

SMALL, LARGE = 0.0, LARGE_JOB_S
BUDGET = ImageBudget(min_pixels=784, max_pixels=10**6, resized=None, max_source_pixels=200_000_000)


class Bench:
    """A running pool, its measurements, and a folder to work in."""

    def __init__(self, pool: MediaPool, times: StageTimes, folder: Path) -> None:
        self.pool = pool
        self.times = times
        self.folder = folder
        os.mkfifo(folder / "hang")
        Image.fromarray(np.zeros((56, 56, 3), np.uint8)).save(folder / "good.png")
        self.number = 0

    def job(self, content: str) -> Job:
        self.number += 1
        output = self.folder / f"output{self.number}"
        output.touch()
        return Job(
            contents=[str(self.folder / content)],
            is_frame_list=False,
            output=str(output),
            budget=BUDGET,
            timeout_s=60,
        )

    def begin(self, content: str, estimate_s: float = SMALL) -> "asyncio.Task[Prepared]":
        return asyncio.create_task(self.pool.run(self.job(content), estimate_s=estimate_s))

    async def settles(self, *, running: int, waiting: int = 0) -> None:
        await until(lambda: (self.pool.num_running, self.pool.num_waiting) == (running, waiting))

    async def still_works(self) -> None:
        prepared = await self.begin("good.png")
        assert prepared.grid == (1, 4, 4)


def pids(pool: MediaPool) -> list[int]:
    return [worker.pid for worker in pool._workers]


def is_alive(pid: int) -> bool:
    """Whether a process exists that is not only waiting to be collected."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@asynccontextmanager
async def bench(folder: Path, **settings: float) -> AsyncIterator[Bench]:
    times = StageTimes()
    workers = MediaPool(MediaSettings.model_validate({"num_workers": 1, **settings}), folder, times)
    await workers.start()
    try:
        yield Bench(workers, times, folder)
    finally:
        last = pids(workers)
        await workers.close()
        assert not any(map(is_alive, last))


async def fails(task: "asyncio.Task[Prepared]", kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        async with asyncio.timeout(10):
            await task


async def test_images_do_not_wait_behind_clips(tmp_path: Path) -> None:
    async with bench(tmp_path, num_workers=2) as work:
        videos = [work.begin("hang", LARGE) for _ in range(3)]
        await work.settles(running=1, waiting=2)
        await asyncio.gather(*(work.begin("good.png") for _ in range(4)))
        assert (work.pool.num_running, work.pool.num_waiting) == (1, 2)
        for video in videos:
            video.cancel()


async def test_single_worker_takes_the_cheaper_job_first(tmp_path: Path) -> None:
    async with bench(tmp_path) as work:
        blocking = work.begin("hang")
        await work.settles(running=1)
        done: list[str] = []
        dear = work.begin("good.png", 60.0)
        cheap = work.begin("good.png", SMALL)
        dear.add_done_callback(lambda _: done.append("dear"))
        cheap.add_done_callback(lambda _: done.append("cheap"))
        await work.settles(running=1, waiting=2)
        blocking.cancel()
        await asyncio.gather(dear, cheap)
        assert done == ["cheap", "dear"]


async def test_time_in_the_queue_and_with_a_worker_is_told_apart(tmp_path: Path) -> None:
    async with bench(tmp_path) as work:
        blocking = work.begin("hang")
        await work.settles(running=1)
        waiting = work.begin("good.png")
        await work.settles(running=1, waiting=1)
        await asyncio.sleep(0.2)
        blocking.cancel()
        await waiting
        await work.settles(running=0)
        queue, decode = work.times.load["queue"], work.times.load["decode"]
    assert (queue.num, decode.num) == (2, 2)
    assert queue.total_s >= 0.2  # the second one alone; the first did not wait
    assert decode.total_s >= 0.2  # the first one alone, until it was given up


async def test_full_queue_rejects(tmp_path: Path) -> None:
    async with bench(tmp_path, max_queued_jobs=1) as work:
        running = work.begin("hang")
        await work.settles(running=1)
        waiting = work.begin("hang")
        await work.settles(running=1, waiting=1)
        await fails(work.begin("good.png"), RateLimitError, "media.max_queued_jobs")
        waiting.cancel()
        await work.settles(running=1)
        running.cancel()
        await work.settles(running=0)
        await work.still_works()


async def test_queue_of_no_places_still_serves_idle_workers(tmp_path: Path) -> None:
    async with bench(tmp_path, max_queued_jobs=0) as work:
        await work.still_works()
        running = work.begin("hang")
        await work.settles(running=1)
        await fails(work.begin("good.png"), RateLimitError, "media.max_queued_jobs")
        running.cancel()


async def test_job_over_its_deadline_is_killed_and_the_worker_replaced(tmp_path: Path) -> None:
    async with bench(tmp_path, decode_timeout_s=0.3) as work:
        [before] = pids(work.pool)
        await fails(work.begin("hang"), DeadlineError, r"longer than 0\.3 s \(media\.decode_timeout_s\)")
        async with asyncio.timeout(10):
            while work.pool.num_restarts == 0:
                await asyncio.sleep(0.01)
        assert not is_alive(before)
        assert work.pool.num_restarts == 1


async def test_job_that_waits_too_long_is_rejected(tmp_path: Path) -> None:
    async with bench(tmp_path, decode_timeout_s=0.5) as work:
        running = work.begin("hang")
        await work.settles(running=1)
        await asyncio.sleep(0.1)
        waiting = [work.begin("hang") for _ in range(2)]
        results = await asyncio.gather(running, *waiting, return_exceptions=True)
        assert [type(result) for result in results] == [DeadlineError, RateLimitError, RateLimitError]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_what_crashes_two_workers_is_refused_and_costs_one_job(tmp_path: Path, number: signal.Signals) -> None:
    async with bench(tmp_path, num_workers=2) as work:
        jobs = [work.begin("hang") for _ in range(2)]
        await work.settles(running=2)
        first = pids(work.pool)
        os.kill(first[0], number)
        await until(lambda: set(pids(work.pool)) - set(first) and work.pool.num_running == 2)
        assert not any(job.done() for job in jobs)
        (second,) = set(pids(work.pool)) - set(first)
        os.kill(second, number)
        await until(lambda: any(job.done() for job in jobs))
        crashed, other = sorted(jobs, key=lambda job: not job.done())
        await fails(crashed, MediaError, "could not be decoded")
        assert not other.done()
        await work.still_works()
        other.cancel()


async def test_a_good_job_survives_the_loss_of_its_worker(tmp_path: Path) -> None:
    async with bench(tmp_path) as work:
        (worker,) = pids(work.pool)
        os.kill(worker, signal.SIGSTOP)
        job = work.begin("good.png")
        await work.settles(running=1)
        os.kill(worker, signal.SIGKILL)
        assert (await job).size == (56, 56)
        assert work.pool.num_restarts == 1


async def test_a_frozen_worker_is_replaced_long_before_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "FROZEN_S", 0.4)
    async with bench(tmp_path, decode_timeout_s=60) as work:
        os.kill(pids(work.pool)[0], signal.SIGSTOP)
        async with asyncio.timeout(20):
            assert (await work.begin("good.png")).size == (56, 56)


async def test_a_client_does_not_wait_for_the_work_of_another(tmp_path: Path) -> None:
    async with bench(tmp_path) as work:
        CLIENT.set("greedy")
        crowd = [work.begin("hang") for _ in range(5)]
        await work.settles(running=1, waiting=4)
        CLIENT.set("other")
        assert (await work.begin("good.png", LARGE)).size == (56, 56)
        for job in crowd:
            job.cancel()
        await asyncio.wait(crowd)


async def test_worker_that_died_idle_costs_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as work:
        [worker] = work.pool._workers
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: worker.has_ended)
        await work.still_works()


async def test_cancelled_job_that_does_not_end_costs_its_worker(tmp_path: Path) -> None:
    async with bench(tmp_path) as work:
        job = work.begin("hang")
        await work.settles(running=1)
        job.cancel()
        await work.still_works()
        assert work.pool.num_restarts == 1


async def test_cancelled_job_that_ends_soon_leaves_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_REST_S", 10)  # however busy the machine is
    async with bench(tmp_path) as work:
        Image.new("RGB", (1200, 1200)).save(tmp_path / "medium.bmp")
        before = pids(work.pool)
        for _ in range(3):
            job = work.begin("medium.bmp")
            await work.settles(running=1)
            job.cancel()
            await work.settles(running=0)
        await work.still_works()
        assert pids(work.pool) == before


async def test_closing_right_after_a_cancellation_ends(tmp_path: Path) -> None:
    async with bench(tmp_path) as work:
        job = work.begin("hang")
        await work.settles(running=1)
        job.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await work.pool.close()


async def test_closing_ends_running_and_waiting_jobs(tmp_path: Path) -> None:
    async with bench(tmp_path) as work:
        jobs = [work.begin("hang") for _ in range(2)]
        await work.settles(running=1, waiting=1)
        await work.pool.close()
        for job in jobs:
            await fails(job, UnavailableError, "shutting down")


async def test_image_that_needs_too_much_memory_is_rejected_and_the_worker_goes_on(tmp_path: Path) -> None:
    async with bench(tmp_path, max_worker_bytes=1 << 29) as work:
        Image.new("1", (13_000, 13_000)).save(tmp_path / "large.png")
        before = pids(work.pool)
        await fails(work.begin("large.png"), MediaError, "memory than media.max_worker_bytes|max_worker_bytes")
        await work.still_works()
        assert pids(work.pool) == before


async def test_workers_get_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_API_KEY", "a secret")
    async with bench(tmp_path) as work:
        environment = Path(f"/proc/{pids(work.pool)[0]}/environ").read_bytes()
    names = {line.partition(b"=")[0] for line in environment.split(b"\0")[:-1]}
    assert names == {b"MALLOC_ARENA_MAX", b"OMP_NUM_THREADS", b"OPENBLAS_NUM_THREADS", b"PYTHONPATH"}


async def test_workers_have_no_network(tmp_path: Path) -> None:
    async with bench(tmp_path) as work:
        [worker] = work.pool._workers
        assert worker.sandbox_error is None
        assert "Seccomp:\t2" in Path(f"/proc/{worker.pid}/status").read_text()


async def test_workers_give_way_to_the_engine(tmp_path: Path) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    async with bench(tmp_path) as work:
        [pid] = pids(work.pool)
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, own + NICENESS)


@pytest.mark.parametrize("limit", ["MAX_KEPT_BYTES", "MAX_JOBS_PER_WORKER"])
async def test_worker_is_replaced_at_a_size_and_after_a_number_of_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    async with bench(tmp_path) as work:
        await work.still_works()
        [worker] = work.pool._workers
        assert 10 << 20 < worker.kept_bytes < pool.MAX_KEPT_BYTES // 4
        monkeypatch.setattr(pool, limit, 1)
        await work.still_works()
        await until(lambda: pids(work.pool) not in ([worker.pid], []))
        assert not is_alive(worker.pid)
        assert worker.kept_bytes == 0
        await work.still_works()
        assert work.pool.num_restarts == 0


def test_workers_load_nothing_heavy() -> None:
    code = "import sys, server.media.workers.main; print({'torch', 'vllm', 'fastapi', 'httpx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_workers_end_with_their_server() -> None:
    code = (
        "import asyncio, pathlib\nfrom server.media.workers.pool import MediaPool\n"
        "from server.media.timings import StageTimes\n"
        "from server.core.settings import MediaSettings\n"
        "async def main():\n"
        '    pool = MediaPool(MediaSettings(), pathlib.Path("/tmp"), StageTimes())\n    await pool.start()\n'
        "    print(*(worker.pid for worker in pool._workers), flush=True)\n    await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        children = [int(pid) for pid in server.stdout.readline().split()]
        assert [is_alive(pid) for pid in children] == [True, True]
        server.kill()
    wait_until(lambda: not any(map(is_alive, children)))
