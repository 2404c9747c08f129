"""The worker process: `python -m server.media.workers.main MAX_BYTES FOLDER`. Reads a job a line, answers with a line.

It handles hostile bytes, so it is started with a clean interpreter and an almost empty environment, may take only so
much address space, has neither network nor other programs (`server/media/workers/sandbox.py`), and may be killed at any
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
from model_executor.processor.patches import Pixels, Rows, row_bytes, write_clip_frame, write_picture
from server.core.errors import ClientError
from server.media.decode import image
from server.media.decode.frame_list import Stills
from server.media.decode.video import open_clip
from server.media.decode.video_source import Clip, ClipSource, FrameWriter, OpenWriter
from server.media.messages import (
    ClipBudget,
    Failed,
    FramesDone,
    ImageBudget,
    Job,
    NoSpace,
    Outcome,
    Prepared,
    Ready,
    Refused,
)
from server.media.workers.landlock import confine_files
from server.media.workers.sandbox import ConfinementError, confine

NICENESS = 5
"""Where a core is wanted by both, the engine gets three parts of four: a running answer is waited for at every token.
Clips, whose decoding is long, give way altogether (`_in_idle_time`)."""

_GRACE_S = 5
_REPORT_INTERVAL_S = 0.5

Report = Callable[[int, int], None]
"""Takes how many frames are written, and how many there will be."""


class _NoSpaceError(Exception):
    """The shared-memory file system is full."""


def prepare(job: Job, report: Report) -> Prepared:
    """Decode, resize and patchify one medium into `job.output`; without one, read its headers only.

    Args:
        job: what to do.
        report: called for every frame of a clip.

    Raises:
        ClientError: the medium cannot be used.
        _NoSpaceError: the output does not fit into shared memory.
    """
    with contextlib.ExitStack() as stack:
        # Opened by number: a container must not learn the name of its file.
        files: list[BinaryIO] = [
            stack.enter_context(os.fdopen(os.open(path, os.O_RDONLY), "rb")) for path in job.contents
        ]
        if isinstance(job.budget, ImageBudget):
            return _prepare_picture(files[0], job.budget, job.output)
        return _prepare_clip(files, job, job.budget, report)


def run(job: Job, report: Report) -> Outcome:
    """`prepare`, with every way to fail as a value."""
    try:
        return prepare(job, report)
    except ClientError as error:
        return Refused(error.message)
    except MemoryError:
        return Refused("Decoding needs more memory than one worker may take (media.max_worker_bytes).")
    except _NoSpaceError:
        return NoSpace()
    except Exception:  # the process boundary: the traceback travels to the server's log
        return Failed(traceback.format_exc())


def main(max_bytes: int, folder: Path) -> None:
    """Serve jobs from standard input until it ends.

    Args:
        max_bytes: address space of this process.
        folder: where the files of jobs lie; the only ones it may write.
    """
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    # Decoders write what a file makes them write; none of it may reach the answers or the server's log.
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

    answer(Ready(_refused(confine), _refused(lambda: confine_files(_libraries(), [folder]))))
    for line in sys.stdin.buffer:
        job = msgspec.json.decode(line, type=Job)
        # Ends this process should the server be gone when the deadline passes.
        signal.setitimer(signal.ITIMER_REAL, job.timeout_s + _GRACE_S)
        outcome = run(job, report)
        signal.setitimer(signal.ITIMER_REAL, 0)
        answer(outcome)


def _refused(confinement: Callable[[], None]) -> str | None:
    """Have the kernel take something away; why it does not."""
    try:
        confinement()
    except ConfinementError as error:
        return str(error)
    return None


def _libraries() -> list[Path]:
    """What a library may want to load later: Python's and the system's, and this project's two packages."""
    prefixes = [sys.prefix, sys.base_prefix, "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache"]
    packages = [
        str(Path(place).parent) for name in ("server", "model_executor") if (place := sys.modules[name].__file__)
    ]
    devices = ["/dev/null", "/dev/urandom", "/usr/share/zoneinfo", "/sys/devices/system/cpu"]
    return [Path(each) for each in (*prefixes, *packages, *devices)]


def _prepare_picture(file: BinaryIO, budget: ImageBudget, output: str | None) -> Prepared:
    picture = image.ImageDecoder(file, max_source_pixels=budget.max_source_pixels)
    size = image.picture_size(picture.size, budget)
    grid = image_grid(size)
    if output is not None:
        pixels = picture.render(size)
        write_picture(_rows(output, grid, 1), grid, pixels)
    return Prepared(
        grid=(grid.t, grid.h, grid.w),
        source_size=_pair(picture.size),
        size=_pair(size),
        notes=list(picture.notes),
    )


def _prepare_clip(files: list[BinaryIO], job: Job, budget: ClipBudget, report: Report) -> Prepared:
    source: ClipSource = Stills(files, budget) if job.is_frame_list else open_clip(files[0], budget)
    if job.output is None:
        clip = source.announced
    else:
        writer = _clip_writer(job.output, report)
        clip = _in_idle_time(lambda: source.write(writer))
    return Prepared(
        grid=(clip.grid.t, clip.grid.h, clip.grid.w),
        source_size=_pair(clip.source_size),
        num_source_frames=clip.num_source_frames,
        size=_pair(clip.size),
        frame_times_s=list(clip.frame_times_s),
        effective_fps=clip.effective_fps,
        notes=list(clip.notes),
    )


def _in_idle_time(work: Callable[[], Clip]) -> Clip:
    """Do `work`, and all that threads it starts do, in time that no other thread of the machine's wants.

    Niceness is not enough for minutes of decoding: a nice thread still keeps its core for milliseconds when the engine
    wakes up for its next token, at any niceness. This policy makes way at once. It cannot be taken back without
    privileges, so it is taken by a thread of its own.
    """
    policy = (0, os.SCHED_IDLE, os.sched_param(0))
    with ThreadPoolExecutor(1, initializer=os.sched_setscheduler, initargs=policy) as thread:
        return thread.submit(work).result()


def _clip_writer(output: str, report: Report) -> OpenWriter:
    def open_writer(grid: Grid) -> FrameWriter:
        rows = _rows(output, grid, TEMPORAL_PATCH_FRAMES)

        def write(index: int, pixels: Pixels) -> None:
            write_clip_frame(rows, grid, index, pixels)
            report(index + 1, TEMPORAL_PATCH_FRAMES * grid.t)

        return write

    return open_writer


def _rows(path: str, grid: Grid, num_depth_frames: int) -> Rows:
    """The output file as rows, uint8 [P, 3 * D * 14 * 14], its memory taken for sure.

    Raises:
        _NoSpaceError: there is not enough; found out here, as a write into a mapping would kill the process.
    """
    shape = (grid.num_patches, row_bytes(num_depth_frames))
    # Never created here: a file whose request went away must not come back.
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
