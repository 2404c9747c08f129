"""Whose time a worker takes while it decodes, and frames that it makes images of."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from numpy.typing import NDArray

from server.media.messages import Job, Prepared, VideoBudget
from server.media.workers.main import prepare
from tests.support.images import made_clip
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


FOUR = structs.replace(
    BUDGET, min_frames=4, max_frames=4, min_pixels=448 * 448, max_pixels=448 * 448, resized=(448, 448)
)


def patches(tmp_path: Path, budget: VideoBudget, content: bytes) -> tuple[Prepared, NDArray[np.uint8]]:
    video, output = tmp_path / "video", tmp_path / "output"
    video.write_bytes(content)
    output.touch()
    made = prepare(
        Job(contents=[str(video)], is_frame_list=False, output=str(output), budget=budget, timeout_s=60),
        lambda *_: None,
    )
    return made, np.fromfile(output, np.uint8)


@pytest.mark.parametrize("number", range(4))
def test_a_frame_as_an_image_is_that_of_the_video(tmp_path: Path, number: int) -> None:
    content = made_clip(31, rate=10)
    video, rows = patches(tmp_path, FOUR, content)
    frame, own = patches(tmp_path, structs.replace(FOUR, only_frame=(number, 4)), content)
    slice_, half = divmod(number, 2)
    assert (video.grid, frame.grid, frame.size) == ((2, 32, 32), (1, 32, 32), (448, 448))
    assert frame.frame_times_s == [video.frame_times_s[number]]
    assert np.array_equal(own.reshape(1024, 3, 196), rows.reshape(2, 1024, 3, 2, 196)[slice_, :, :, half])


@pytest.mark.parametrize(("number", "expected"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_a_video_of_fewer_frames_repeats_them(tmp_path: Path, number: int, expected: int) -> None:
    frame, rows = patches(tmp_path, structs.replace(FOUR, only_frame=(number, 4)), made_clip(2, rate=10))
    assert frame.frame_times_s == [pytest.approx(expected / 10)]
    assert rows.any()
