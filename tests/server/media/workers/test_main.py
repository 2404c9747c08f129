"""Whose time a worker takes while it decodes."""

import os
import threading
from pathlib import Path

from server.media.messages import Job, Prepared
from server.media.workers.main import prepare
from tests.support.videos import BUDGET, real_video


def job(tmp_path: Path) -> Job:
    video, output = tmp_path / "video", tmp_path / "output"
    video.write_bytes(real_video("bikes"))
    output.touch()
    return Job(contents=[str(video)], is_frame_list=False, output=str(output), budget=BUDGET, timeout_s=60)


def decoder_threads() -> list[int]:
    """Threads of this process that FFmpeg has started, by the names it gives them."""
    tasks = Path("/proc/self/task")
    return [int(task.name) for task in tasks.iterdir() if (task / "comm").read_text().startswith("av:")]


def test_videos_are_decoded_in_idle_time_by_all_threads(tmp_path: Path) -> None:
    policies: set[int] = set()
    names: set[str] = set()
    seen = 0

    def report(num_done: int, num_total: int) -> None:
        nonlocal seen
        decoders = decoder_threads()
        seen = max(seen, len(decoders))
        names.add(threading.current_thread().name)
        policies.update(os.sched_getscheduler(thread) for thread in [0, *decoders])

    assert isinstance(prepare(job(tmp_path), report), Prepared)
    assert policies == {os.SCHED_IDLE}
    assert seen
    assert threading.main_thread().name not in names


def test_the_worker_itself_keeps_its_time(tmp_path: Path) -> None:
    before = os.sched_getscheduler(0)
    prepare(job(tmp_path), lambda num_done, num_total: None)
    assert os.sched_getscheduler(0) == before != os.SCHED_IDLE
    assert not decoder_threads()
