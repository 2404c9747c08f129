"""Media of a request, from URLs to patches in shared memory: the one thing the rest of the server sees of media.

1. Every part's wishes are checked and joined with the limits (`budget.py`), before anything is fetched.
2. The bytes behind its URL stream into shared memory (`fetch.py`, `shared.py`).
3. A worker decodes, resizes and patchifies them (`pool.py`, `worker.py`).

Whatever goes wrong with one part, everything the request holds is given back.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from model_executor.geometry import (
    TEMPORAL_PATCH_FRAMES,
    TOKEN_PX,
    VIDEO_FRAME_MAX_PIXELS,
    VIDEO_FRAME_MIN_PIXELS,
    Grid,
    Size,
)
from server.errors import BadRequestError
from server.media.budget import CheckpointLimits, clip_budget, image_budget
from server.media.fetch import Fetcher
from server.media.job import PATCH_BYTES_PER_PIXEL, ClipBudget, ImageBudget, Job, Prepared
from server.media.part import MediaPart, PreparedMedia
from server.media.pool import LARGE_JOB_S, MediaPool
from server.media.shared import Lease, SharedFolder
from server.settings import MediaSettings

SHARED_MEMORY = Path("/dev/shm")

T = TypeVar("T")

_PARALLEL_PARTS = 4
"""Parts of one request in work at the same time."""
_PARALLEL_FRAMES = 8
"""Frames of one list fetched at the same time."""
_PICTURE_BYTES_PER_S = 10e6
_CLIP_BYTES_PER_S = 1e6


@dataclass(frozen=True, slots=True)
class MediaLoad:
    """How busy the media side is."""

    num_waiting: int
    """Jobs that wait for a worker."""
    num_running: int
    """Jobs being worked on."""
    num_restarts: int
    """Workers replaced since the start because a job failed, was given up or ran out of time."""
    shared_bytes: int
    """Shared memory in use: encoded media, and patches of requests that have not ended."""


class MediaService:
    """Prepares the media of requests.

    Args:
        settings: the limits.
        image_min_pixels: the checkpoint's, per picture.
        image_max_pixels: the checkpoint's, per picture.
        video_min_pixels: the checkpoint's, per frame of a clip; gives way where a clip has many frames.
        video_max_pixels: the checkpoint's, per frame of a clip.
        shared_memory: file system of the patches; the engine must see it, too.
    """

    def __init__(
        self,
        settings: MediaSettings,
        *,
        image_min_pixels: int,
        image_max_pixels: int,
        video_min_pixels: int = VIDEO_FRAME_MIN_PIXELS,
        video_max_pixels: int = VIDEO_FRAME_MAX_PIXELS,
        shared_memory: Path = SHARED_MEMORY,
    ) -> None:
        """See the class."""
        self._settings = settings
        self._checkpoint = CheckpointLimits(image_min_pixels, image_max_pixels, video_min_pixels, video_max_pixels)
        self._shared_memory = shared_memory
        self._stack = contextlib.AsyncExitStack()
        self._folder: SharedFolder
        self._fetcher: Fetcher
        self._pool: MediaPool

    async def start(self) -> None:
        """Start the workers and take the shared memory; must be awaited before anything else.

        Raises:
            RuntimeError: a worker does not start.
        """
        async with contextlib.AsyncExitStack() as stack:
            self._folder = SharedFolder(self._shared_memory, self._settings.max_shared_bytes)
            stack.callback(self._folder.close)
            self._fetcher = Fetcher(self._settings)
            stack.callback(self._fetcher.close)
            self._pool = MediaPool(self._settings)
            await self._pool.start()
            stack.push_async_callback(self._pool.close)
            self._stack = stack.pop_all()

    async def close(self) -> None:
        """Stop the workers and give the shared memory back, that of requests still running included."""
        await self._stack.aclose()

    @property
    def load(self) -> MediaLoad:
        """A reading, for metrics."""
        pool = self._pool
        return MediaLoad(pool.num_waiting, pool.num_running, pool.num_restarts, self._folder.used_bytes)

    async def prepare(self, parts: Sequence[MediaPart], tenant: str) -> list[PreparedMedia]:
        """Prepare the media of one request; each must be released when the request has ended.

        Args:
            parts: in order of the request.
            tenant: whose request it is; enters the digests.

        Returns:
            As many, in the same order.

        Raises:
            BadRequestError: a part cannot be used; `param` says which.
            DeadlineError: a part took too long to fetch or to prepare.
            RateLimitError: too much is being prepared already.
        """
        if len(parts) > self._settings.max_parts:
            raise BadRequestError(
                f"The request has {len(parts)} pictures and clips; at most {self._settings.max_parts} are taken "
                "(media.max_parts).",
                param=parts[self._settings.max_parts].param,
            )
        budgets = [self._budget(part) for part in parts]
        places = asyncio.Semaphore(_PARALLEL_PARTS)
        done: list[PreparedMedia] = []
        try:
            return await _together(
                self._prepare_part(part, budget, tenant, places, done)
                for part, budget in zip(parts, budgets, strict=True)
            )
        except BaseException:
            for prepared in done:
                prepared.release()
            raise

    def _budget(self, part: MediaPart) -> ImageBudget | ClipBudget:
        if part.modality == "video":
            return clip_budget(part, self._settings, self._checkpoint)
        return image_budget(part, self._settings, self._checkpoint)

    async def _prepare_part(
        self,
        part: MediaPart,
        budget: ImageBudget | ClipBudget,
        tenant: str,
        places: asyncio.Semaphore,
        done: list[PreparedMedia],
    ) -> PreparedMedia:
        async with places:
            with contextlib.ExitStack() as until_prepared, contextlib.ExitStack() as until_failed:
                contents = await self._fetch(part, until_prepared)
                output = self._folder.lease(_max_patch_bytes(part, budget))
                until_failed.callback(output.release)
                job = Job(
                    contents=[str(content.path) for content in contents],
                    is_frame_list=isinstance(part.source, tuple),
                    output=str(output.path),
                    budget=budget,
                    tenant=tenant,
                    timeout_s=self._settings.timeout_s,
                )
                estimate_s = _estimate_s(part, sum(content.num_bytes for content in contents))
                result = await self._pool.run(job, estimate_s=estimate_s, param=part.param)
                until_failed.pop_all()
                prepared = _prepared_media(part, result, output)
                done.append(prepared)
                return prepared

    async def _fetch(self, part: MediaPart, stack: contextlib.ExitStack) -> list[Lease]:
        """The part's bytes in shared memory, until `stack` closes."""
        if isinstance(part.source, str):
            is_clip = part.modality == "video"
            limit = "media.max_video_bytes" if is_clip else "media.max_image_bytes"
            max_bytes = self._settings.max_video_bytes if is_clip else self._settings.max_image_bytes
            content = self._empty_file(stack)
            await self._fetcher.fetch(part.source, content.append, max_bytes=max_bytes, limit=limit, param=part.param)
            return [content]
        return await self._fetch_frames(part.source, stack, part.param)

    async def _fetch_frames(self, urls: Sequence[str], stack: contextlib.ExitStack, param: str) -> list[Lease]:
        """The frames of a list, which all together must stay below the limit of a clip."""
        max_bytes, max_clip_bytes = self._settings.max_image_bytes, self._settings.max_video_bytes
        places = asyncio.Semaphore(_PARALLEL_FRAMES)
        total_bytes = 0

        async def fetch(url: str, content: Lease) -> None:
            def append(data: bytes) -> None:
                nonlocal total_bytes
                total_bytes += len(data)
                if total_bytes > max_clip_bytes:
                    raise BadRequestError(
                        f"The frames are together larger than {max_clip_bytes} bytes (media.max_video_bytes).",
                        param=param,
                    )
                content.append(data)

            async with places:
                await self._fetcher.fetch(url, append, max_bytes=max_bytes, limit="media.max_image_bytes", param=param)

        contents = [self._empty_file(stack) for _ in urls]
        await _together(fetch(url, content) for url, content in zip(urls, contents, strict=True))
        return contents

    def _empty_file(self, stack: contextlib.ExitStack) -> Lease:
        content = self._folder.lease(0)
        stack.callback(content.release)
        return content


async def _together(work: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """Do all of it at the same time; where one fails, all have ended before the first error is raised."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise


def _max_patch_bytes(part: MediaPart, budget: ImageBudget | ClipBudget) -> int:
    """The most patches a medium within `budget` can have, in bytes."""
    if isinstance(budget, ImageBudget):
        return PATCH_BYTES_PER_PIXEL * max(budget.max_pixels, TOKEN_PX)
    num_frames = budget.max_frames if isinstance(part.source, str) else len(part.source) + 1
    num_slices = max(1, num_frames // TEMPORAL_PATCH_FRAMES)
    return PATCH_BYTES_PER_PIXEL * TEMPORAL_PATCH_FRAMES * max(budget.total_pixels, num_slices * TOKEN_PX)


def _estimate_s(part: MediaPart, num_bytes: int) -> float:
    """Roughly what preparing a part costs; only the order matters, and that clips count as large."""
    if part.modality == "video":
        return LARGE_JOB_S + num_bytes / _CLIP_BYTES_PER_S
    return min(num_bytes / _PICTURE_BYTES_PER_S, LARGE_JOB_S / 2)


def _prepared_media(part: MediaPart, result: Prepared, output: Lease) -> PreparedMedia:
    grid = Grid(*result.grid)
    num_frames = TEMPORAL_PATCH_FRAMES if part.modality == "video" else 1
    size = Size(*result.size)
    output.shrink(PATCH_BYTES_PER_PIXEL * num_frames * grid.t * size.height * size.width)
    return PreparedMedia(
        modality=part.modality,
        grid=grid,
        digest=result.digest,
        path=str(output.path),
        source_size=Size(*result.source_size),
        size=size,
        release=output.release,
        frame_times_s=tuple(result.frame_times_s),
        effective_fps=result.effective_fps,
        notes=tuple(result.notes),
    )
