"""Media of a request, from URLs to patches in shared memory: the one thing the rest of the server sees of media.

1. Every part's wishes are checked and joined with the limits (`budget.py`), before anything is fetched.
2. The bytes behind its URL stream into shared memory and are hashed on the way (`contents.py`, `fetch.py`,
   `shared.py`).
3. Where the same content was prepared the same way for the same tenant, that is taken (`cache.py`).
4. Otherwise a worker decodes, resizes and patchifies it (`pool.py`, `worker.py`).

Whatever goes wrong with one part, everything the request holds is given back.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import blake3
import msgspec

from model_executor.geometry import (
    TEMPORAL_PATCH_FRAMES,
    TOKEN_PX,
    VIDEO_FRAME_MAX_PIXELS,
    VIDEO_FRAME_MIN_PIXELS,
    Grid,
    Size,
)
from server.errors import BadRequestError, DeadlineError
from server.media.allowance import Allowance
from server.media.budget import CheckpointLimits, clip_budget, image_budget
from server.media.cache import CachedMedium, CacheLoad, Hold, MediaCache
from server.media.contents import Contents, together
from server.media.fetch import Fetcher
from server.media.job import PATCH_BYTES_PER_PIXEL, ClipBudget, ImageBudget, Job, Prepared
from server.media.part import MediaPart, PreparedMedia
from server.media.pool import LARGE_JOB_S, MediaPool
from server.media.progress import FrameCount, Progress
from server.media.shared import Lease, SharedFolder, SharedMemoryFullError
from server.settings import MediaSettings

SHARED_MEMORY = Path("/dev/shm")

_PARALLEL_PARTS = 4
"""Parts of one request in work at the same time."""
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
    cache: CacheLoad = CacheLoad()


@dataclass(slots=True)
class _Request:
    """What the parts of one request share."""

    tenant: str
    allowance: Allowance
    progress: Progress
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PARALLEL_PARTS))
    done: list[PreparedMedia] = field(default_factory=list)


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
        # Idle media must not fill a small file system that others need, too (64 MiB is usual in containers).
        self._cache = MediaCache(min(settings.max_cache_bytes, shutil.disk_usage(shared_memory).total // 2))
        self._folder: SharedFolder
        self._contents: Contents
        self._pool: MediaPool

    async def start(self) -> None:
        """Start the workers and take the shared memory; must be awaited before anything else.

        Raises:
            RuntimeError: a worker does not start.
        """
        async with contextlib.AsyncExitStack() as stack:
            self._folder = SharedFolder(
                self._shared_memory, self._settings.max_shared_bytes, reclaim=self._cache.reclaim
            )
            stack.callback(self._folder.close)
            fetcher = Fetcher(self._settings)
            stack.callback(fetcher.close)
            self._contents = Contents(self._settings, fetcher, self._folder)
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
        pool, cache = self._pool, self._cache.load
        used_bytes = self._folder.used_bytes - cache.idle_bytes
        return MediaLoad(pool.num_waiting, pool.num_running, pool.num_restarts, used_bytes, cache)

    async def prepare(
        self, parts: Sequence[MediaPart], tenant: str, progress: Progress | None = None
    ) -> list[PreparedMedia]:
        """Prepare the media of one request; each must be released when the request has ended.

        Args:
            parts: in order of the request.
            tenant: whose request it is; nothing is shared between tenants.
            progress: kept up to date meanwhile.

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
        request = _Request(tenant, Allowance(self._settings), progress or Progress())
        request.progress.begin(len(parts))
        try:
            return await together(
                self._prepare_part(index, part, budget, request)
                for index, (part, budget) in enumerate(zip(parts, budgets, strict=True))
            )
        except BaseException:
            for prepared in request.done:
                prepared.release()
            raise
        finally:
            request.progress.end()

    def _budget(self, part: MediaPart) -> ImageBudget | ClipBudget:
        if part.modality == "video":
            return clip_budget(part, self._settings, self._checkpoint)
        return image_budget(part, self._settings, self._checkpoint)

    async def _prepare_part(
        self, index: int, part: MediaPart, budget: ImageBudget | ClipBudget, request: _Request
    ) -> PreparedMedia:
        async with request.places:
            hold = await self._hold(part, budget, request)
            request.progress.follow(index, hold.frames)
            try:
                medium = await hold.ready()
            except (BadRequestError, DeadlineError) as error:
                # Shared by all who waited, and about the part of whoever came first.
                raise type(error)(error.message, param=part.param, code=error.code) from error
            prepared = _prepared_media(part, medium, hold)
            request.done.append(prepared)
            request.allowance.take(prepared, part.param)
            return prepared

    async def _hold(self, part: MediaPart, budget: ImageBudget | ClipBudget, request: _Request) -> Hold:
        """A claim on the part's entry in the cache, which is being prepared where it is not there."""
        with contextlib.ExitStack() as stack:
            contents = await self._contents.fetch(part, stack, request.allowance)
            key = _key(part, budget, contents, request.tenant)
            return self._cache.hold(
                key, lambda frames: self._decode(part, budget, contents, frames), inputs=stack.pop_all()
            )

    async def _decode(
        self, part: MediaPart, budget: ImageBudget | ClipBudget, contents: Sequence[Lease], frames: FrameCount
    ) -> CachedMedium:
        with contextlib.ExitStack() as until_failed:
            output = self._folder.lease(_max_patch_bytes(part, budget))
            until_failed.callback(output.release)
            job = Job(
                contents=[str(content.path) for content in contents],
                is_frame_list=isinstance(part.source, tuple),
                output=str(output.path),
                budget=budget,
                timeout_s=self._settings.timeout_s,
            )
            estimate_s = _estimate_s(part, sum(content.num_bytes for content in contents))
            run = partial(self._pool.run, job, estimate_s=estimate_s, param=part.param, frames=frames)
            try:
                prepared = await run()
            except SharedMemoryFullError:  # the machine has less than the ledger allows
                if not self._folder.reclaim(self._folder.used_bytes):
                    raise
                prepared = await run()
            output.shrink(_patch_bytes(part, prepared))
            until_failed.pop_all()
            return CachedMedium(prepared, output)


def _max_patch_bytes(part: MediaPart, budget: ImageBudget | ClipBudget) -> int:
    """The most patches a medium within `budget` can have, in bytes."""
    if isinstance(budget, ImageBudget):
        return PATCH_BYTES_PER_PIXEL * max(budget.max_pixels, TOKEN_PX)
    num_frames = len(part.source) + 1 if isinstance(part.source, tuple) else budget.max_frames
    num_slices = max(1, num_frames // TEMPORAL_PATCH_FRAMES)
    return PATCH_BYTES_PER_PIXEL * TEMPORAL_PATCH_FRAMES * max(budget.total_pixels, num_slices * TOKEN_PX)


def _estimate_s(part: MediaPart, num_bytes: int) -> float:
    """Roughly what preparing a part costs; only the order matters, and that clips count as large."""
    if part.modality == "video":
        return LARGE_JOB_S + num_bytes / _CLIP_BYTES_PER_S
    return min(num_bytes / _PICTURE_BYTES_PER_S, LARGE_JOB_S / 2)


def _key(part: MediaPart, budget: ImageBudget | ClipBudget, contents: Sequence[Lease], tenant: str) -> str:
    """Hex digest over everything the patches depend on, and the tenant. JSON keeps the fields apart."""
    digests = [content.digest for content in contents]
    facts = [part.modality, isinstance(part.source, tuple), digests, budget, tenant]
    return blake3.blake3(msgspec.json.encode(facts)).hexdigest()


def _patch_bytes(part: MediaPart, prepared: Prepared) -> int:
    num_frames = TEMPORAL_PATCH_FRAMES if part.modality == "video" else 1
    height, width = prepared.size
    return PATCH_BYTES_PER_PIXEL * num_frames * prepared.grid[0] * height * width


def _prepared_media(part: MediaPart, medium: CachedMedium, hold: Hold) -> PreparedMedia:
    prepared = medium.prepared
    return PreparedMedia(
        modality=part.modality,
        grid=Grid(*prepared.grid),
        digest=hold.key,
        path=str(medium.patches.path),
        source_size=Size(*prepared.source_size),
        size=Size(*prepared.size),
        release=hold.release,
        frame_times_s=tuple(prepared.frame_times_s),
        effective_fps=prepared.effective_fps,
        notes=tuple(prepared.notes),
    )
