"""The worker process: `python -m server.media.workers.main MAX_BYTES`. Reads one job a line, writes one answer a line.

It handles hostile bytes, so it starts with a clean interpreter and an almost empty environment, its address space is
limited, it can use no network and start no programs (`server/media/workers/sandbox.py`), and it may be killed at any
moment. It imports neither torch nor vllm nor fastapi. Twin that must agree: `server/media/workers/process.py`.
"""

import contextlib
import mmap
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from model_executor.processor.geometry import TEMPORAL_PATCH_FRAMES, Grid, Size, image_grid
from model_executor.processor.patches import Pixels, Rows, row_bytes, write_image, write_video_frame
from server.media.decode import image
from server.media.decode.frame_list import FrameList
from server.media.decode.video import open_video
from server.media.decode.video_source import FrameWriter, OpenWriter, VideoPlan, VideoSource
from server.media.errors import MediaError
from server.media.messages import (
    Failed,
    FramesDone,
    ImageBudget,
    Job,
    NoSpace,
    Outcome,
    Prepared,
    Ready,
    Rejected,
    VideoBudget,
)
from server.media.workers.landlock import confine_files
from server.media.workers.sandbox import SandboxError, enter_sandbox

NICENESS = 5
"""Where both need a core, the engine gets three quarters of it: every token of a running answer is waited for. Videos,
whose decoding is long, give way entirely (`_in_idle_time`)."""

_GRACE_S = 5
_REPORT_INTERVAL_S = 0.5

Report = Callable[[int, int], None]
"""Receives how many frames are written, and how many there will be."""


class _NoSpaceError(Exception):
    """The shared-memory file system is full."""


def prepare(job: Job, report: Report) -> Prepared:
    """Decode, resize and patchify one image or video into `job.output`; without an output, only read its headers.

    Args:
        job: what to do.
        report: called for every frame of a video.

    Raises:
        MediaError: the image or video cannot be used.
        _NoSpaceError: the output does not fit into shared memory.
    """
    with contextlib.ExitStack() as stack:
        # Opened by descriptor: a container must not learn the name of its file.
        files: list[BinaryIO] = [
            stack.enter_context(os.fdopen(os.open(path, os.O_RDONLY), "rb")) for path in job.contents
        ]
        if isinstance(job.budget, ImageBudget):
            return _prepare_image(files[0], job.budget, job.output)
        return _prepare_video(files, job, job.budget, report)


def run(job: Job, report: Report) -> Outcome:
    """`prepare`, with every failure as a value."""
    try:
        return prepare(job, report)
    except MediaError as error:
        return Rejected(error.code, error.message, error.limit)
    except MemoryError:
        return Rejected("media_too_large", "Decoding needs more memory than media.max_worker_bytes.", None)
    except _NoSpaceError:
        return NoSpace()
    except Exception:  # the process boundary: the traceback travels to the server's log
        return Failed(traceback.format_exc())


def main(max_bytes: int, directory: Path) -> None:
    """Serve jobs from standard input until it ends.

    Args:
        max_bytes: address space of this process.
        directory: of the files of jobs, the only ones that it can write.
    """
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    # Decoders may print what a file makes them print; none of it may reach the answers or the server's log.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    next_report_s = 0.0

    def answer(message: Ready | Outcome | FramesDone) -> None:
        answers.write(msgspec.json.encode(message) + b"\n")
        answers.flush()

    def report(num_done: int, num_total: int) -> None:
        nonlocal next_report_s
        if (now_s := time.monotonic()) >= next_report_s:
            next_report_s = now_s + _REPORT_INTERVAL_S
            answer(FramesDone(num_done, num_total))

    answer(Ready(_error_of(enter_sandbox), _error_of(lambda: confine_files(_libraries(), [directory]))))
    for line in sys.stdin.buffer:
        job = msgspec.json.decode(line, type=Job)
        # Ends this process should the server be gone when the deadline passes.
        signal.setitimer(signal.ITIMER_REAL, job.timeout_s + _GRACE_S)
        outcome = run(job, report)
        signal.setitimer(signal.ITIMER_REAL, 0)
        answer(outcome)


def _error_of(confine: Callable[[], None]) -> str | None:
    """Enter a part of the sandbox; why that is impossible, or None."""
    try:
        confine()
    except SandboxError as error:
        return str(error)
    return None


def _libraries() -> list[Path]:
    """Files that libraries may load later: Python's, the system's, and those of this project's two packages."""
    prefixes = [sys.prefix, sys.base_prefix, "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache"]
    modules = [sys.modules[name].__file__ for name in ("server", "model_executor")]
    packages = [str(Path(module).parent) for module in modules if module]
    devices = ["/dev/null", "/dev/urandom", "/usr/share/zoneinfo", "/sys/devices/system/cpu"]
    return [Path(each) for each in (*prefixes, *packages, *devices)]


def _prepare_image(file: BinaryIO, budget: ImageBudget, output: str | None) -> Prepared:
    decoder = image.ImageDecoder(file, max_source_pixels=budget.max_source_pixels)
    size = image.image_size(decoder.size, budget)
    grid = image_grid(size)
    if output is not None:
        pixels = decoder.render(size)
        write_image(_rows(output, grid, 1), grid, pixels)
    return Prepared(
        grid=(grid.t, grid.h, grid.w),
        source_size=_pair(decoder.size),
        size=_pair(size),
        notes=list(decoder.notes),
    )


def _prepare_video(files: list[BinaryIO], job: Job, budget: VideoBudget, report: Report) -> Prepared:
    source: VideoSource = FrameList(files, budget) if job.is_frame_list else open_video(files[0], budget)
    if budget.only_frame is not None:
        return _prepare_frame(source, job, *budget.only_frame)
    if job.output is None:
        video = source.plan
    else:
        writer = _video_writer(job.output, report)
        video = _in_idle_time(lambda: source.write(writer))
    return Prepared(
        grid=(video.grid.t, video.grid.h, video.grid.w),
        source_size=_pair(video.source_size),
        num_source_frames=video.num_source_frames,
        size=_pair(video.size),
        frame_times_s=list(video.frame_times_s),
        effective_fps=video.effective_fps,
        notes=list(video.notes),
    )


def _prepare_frame(source: VideoSource, job: Job, number: int, num_frames: int) -> Prepared:
    """One of a video's frames as an image: the nearest to the `number`-th of `num_frames` evenly spaced ones."""
    grid = image_grid(source.plan.size)

    def chosen(plan: VideoPlan) -> int:
        return round(number * (len(plan.frame_times_s) - 1) / (num_frames - 1))

    if job.output is None:
        video = source.plan
    else:
        rows = _rows(job.output, grid, 1)

        def write(index: int, pixels: Pixels) -> None:
            if index == chosen(source.plan):
                write_image(rows, grid, pixels)

        video = _in_idle_time(lambda: source.write(lambda _: write))
    return Prepared(
        grid=(grid.t, grid.h, grid.w),
        source_size=_pair(video.source_size),
        num_source_frames=video.num_source_frames,
        size=_pair(video.size),
        frame_times_s=[video.frame_times_s[chosen(video)]],
        effective_fps=video.effective_fps,
        notes=list(video.notes),
    )


def _in_idle_time(work: Callable[[], VideoPlan]) -> VideoPlan:
    """Do `work`, and all that threads it starts do, only while no other thread of the machine needs the core.

    Niceness is not enough for minutes of decoding: a nice thread still keeps its core for milliseconds when the engine
    wakes up for its next token, at any niceness. This policy gives way at once. It cannot be reverted without
    privileges, so a thread of its own adopts it.
    """
    policy = (0, os.SCHED_IDLE, os.sched_param(0))
    with ThreadPoolExecutor(1, initializer=os.sched_setscheduler, initargs=policy) as thread:
        return thread.submit(work).result()


def _video_writer(output: str, report: Report) -> OpenWriter:
    def open_writer(grid: Grid) -> FrameWriter:
        rows = _rows(output, grid, TEMPORAL_PATCH_FRAMES)

        def write(index: int, pixels: Pixels) -> None:
            write_video_frame(rows, grid, index, pixels)
            report(index + 1, TEMPORAL_PATCH_FRAMES * grid.t)

        return write

    return open_writer


def _rows(path: str, grid: Grid, num_depth_frames: int) -> Rows:
    """The output file as rows, uint8 [P, 3 * D * 14 * 14], with its memory allocated.

    Raises:
        _NoSpaceError: there is not enough; detected here, as a write into a mapping would kill the process.
    """
    shape = (grid.num_patches, row_bytes(num_depth_frames))
    # Never created here: a file whose request is gone must not reappear.
    file = os.open(path, os.O_RDWR | os.O_TRUNC)
    try:
        os.posix_fallocate(file, 0, shape[0] * shape[1])
        mapping = mmap.mmap(file, shape[0] * shape[1])
    except OSError as error:
        raise _NoSpaceError from error
    finally:
        os.close(file)
    return np.frombuffer(mapping, dtype=np.uint8).reshape(shape)


def _pair(size: Size) -> tuple[int, int]:
    return size.height, size.width


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
