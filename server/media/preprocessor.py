"""Prepares a request's images and videos, from URLs to patches in shared memory; the one entry to this package.

1. Every part's limits are joined with the server's (`budget.py`), before anything is fetched.
2. The bytes behind its URL stream into shared memory and are hashed on the way (`fetch/`).
3. Where the same content was prepared the same way for the same tenant, that is used (`cache.py`); otherwise a worker
   reads the headers (`workers/`).
4. Once all parts are known, and together within a request's limits (`request_limits.py`), workers decode, resize and
   patchify what is not in the cache.

Whatever fails in one part, everything that the request holds is released. Errors of a part become API errors here.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model_executor.engine import SHARED_MEMORY
from model_executor.processor.geometry import VIDEO_FRAME_MAX_PIXELS, VIDEO_FRAME_MIN_PIXELS, Grid, Size
from server.core.concurrency import forever
from server.core.errors import ApiError, BadRequestError, DeadlineError, NotFoundError
from server.core.metrics import MediaLoad
from server.core.settings import MediaSettings
from server.media.budget import CheckpointLimits, image_budget, video_budget
from server.media.cache import CachedMedia, CacheLease, MediaCache
from server.media.errors import MediaError
from server.media.fetch.fetcher import Fetcher
from server.media.fetch.part_bytes import PartFetcher, gather_all
from server.media.messages import ImageBudget, Prepared, VideoBudget
from server.media.progress import Progress
from server.media.request_limits import RequestBudget
from server.media.shared_memory import SharedDirectory
from server.media.timings import StageTimes
from server.media.types import LocalFile, MediaPart, PreparedMedia
from server.media.workers.decode_jobs import EncodedMedia, JobRunner
from server.media.workers.pool import MediaPool

_EXPIRY_INTERVAL_S = 60.0
_PARALLEL_PARTS = 4
"""Parts of one request that are worked on at the same time."""


@dataclass(slots=True)
class _Request:
    """What the parts of one request share."""

    tenant: str
    budget: RequestBudget
    progress: Progress
    until_failed: contextlib.ExitStack
    """Releases everything the parts hold."""
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PARALLEL_PARTS))


@dataclass(frozen=True, slots=True)
class _FetchedPart:
    """A part whose bytes have arrived, within the limits of the request."""

    encoded: EncodedMedia
    key: str
    inputs: contextlib.ExitStack
    """Releases the encoded bytes."""
    expected: Prepared
    """What it becomes, if its headers are correct."""
    lease: CacheLease | None
    """None where it was not in the cache."""


class MediaPreprocessor:
    """Prepares the media of requests.

    Args:
        settings: the limits.
        image_min_pixels: the checkpoint's, per image.
        image_max_pixels: the checkpoint's, per image.
        video_min_pixels: the checkpoint's, per frame of a video; gives way where a video has many frames.
        video_max_pixels: the checkpoint's, per frame of a video.
        image_size: the family's, where all images have one.
        shared_memory: file system of the patches; the engine must see it as well.
    """

    def __init__(
        self,
        settings: MediaSettings,
        *,
        image_min_pixels: int,
        image_max_pixels: int,
        video_min_pixels: int = VIDEO_FRAME_MIN_PIXELS,
        video_max_pixels: int = VIDEO_FRAME_MAX_PIXELS,
        image_size: Size | None = None,
        shared_memory: Path = SHARED_MEMORY,
    ) -> None:
        """Nothing runs yet; see `start`."""
        self._settings = settings
        self._checkpoint = CheckpointLimits(
            image_min_pixels, image_max_pixels, video_min_pixels, video_max_pixels, image_size
        )
        self._shared_memory = shared_memory
        self._stack = contextlib.AsyncExitStack()
        self._times = StageTimes()
        # Idle media must not fill a small file system that others need as well (64 MiB is usual in containers).
        self._cache = MediaCache(min(settings.max_cache_bytes, shutil.disk_usage(shared_memory).total // 2))
        self._directory: SharedDirectory
        self._fetcher: PartFetcher
        self._pool: MediaPool
        self._jobs: JobRunner

    async def start(self) -> None:
        """Start the workers and create the shared memory; must be awaited before anything else.

        Raises:
            RuntimeError: a worker failed to start.
        """
        async with contextlib.AsyncExitStack() as stack:
            self._directory = SharedDirectory(
                self._shared_memory, self._settings.max_shared_bytes, reclaim=self._cache.reclaim
            )
            stack.callback(self._directory.close)
            fetcher = Fetcher(self._settings)
            stack.callback(fetcher.close)
            self._fetcher = PartFetcher(self._settings, fetcher, self._directory)
            self._pool = MediaPool(self._settings, self._directory.path, self._times)
            await self._pool.start()
            stack.push_async_callback(self._pool.close)
            self._jobs = JobRunner(self._pool, self._directory, timeout_s=self._settings.decode_timeout_s)
            expiring = asyncio.create_task(forever(self._expire, "the expiry of cached media"))
            stack.callback(expiring.cancel)
            self._stack = stack.pop_all()

    async def close(self) -> None:
        """Stop the workers and delete the shared memory, that of requests still running included."""
        await self._stack.aclose()

    def forget_file(self, file: Path) -> None:
        """Give up what was prepared from an uploaded file that is deleted."""
        self._cache.forget_file(file)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRY_INTERVAL_S)
            self._cache.forget_older(self._settings.max_cache_s)

    @property
    def load(self) -> MediaLoad:
        """The current load, for metrics."""
        pool, cache = self._pool, self._cache.load
        used_bytes = self._directory.used_bytes - cache.idle_bytes
        return MediaLoad(
            pool.num_waiting, pool.num_running, pool.num_restarts, used_bytes, cache, dict(self._times.load)
        )

    async def prepare(
        self, parts: Sequence[MediaPart], tenant: str, progress: Progress | None = None
    ) -> list[PreparedMedia]:
        """Prepare the images and videos of one request; each must be released when the request has ended.

        Args:
            parts: in order of the request.
            tenant: whose request it is; nothing is shared between tenants.
            progress: updated during the work.

        Returns:
            As many, in the same order.

        Raises:
            BadRequestError, NotFoundError: a part cannot be used; `param` says which.
            DeadlineError: a part took too long to fetch or to decode.
            RateLimitError: too much is being prepared already.
        """
        if len(parts) > self._settings.max_parts:
            raise BadRequestError(
                f"The request has {len(parts)} images and videos; the limit is {self._settings.max_parts} "
                "(media.max_parts).",
                param=parts[self._settings.max_parts].param,
                code="request_limit_exceeded",
            )
        budgets = [self._budget(part) for part in parts]
        progress = progress or Progress()
        progress.begin(len(parts))
        try:
            with contextlib.ExitStack() as until_failed:
                request = _Request(tenant, RequestBudget(self._settings), progress, until_failed)
                fetched = await gather_all(
                    self._fetch(index, part, budget, request)
                    for index, (part, budget) in enumerate(zip(parts, budgets, strict=True))
                )
                prepared = await gather_all(self._decode(index, part, request) for index, part in enumerate(fetched))
                until_failed.pop_all()
                return prepared
        finally:
            progress.end()

    def _budget(self, part: MediaPart) -> ImageBudget | VideoBudget:
        with _errors_of(part):
            if part.modality == "video":
                return video_budget(part, self._settings, self._checkpoint)
            return image_budget(part, self._settings, self._checkpoint)

    async def _fetch(
        self, index: int, part: MediaPart, budget: ImageBudget | VideoBudget, request: _Request
    ) -> _FetchedPart:
        """Fetch a part and learn what it becomes, from the cache or its headers."""
        async with request.slots:
            inputs = request.until_failed.enter_context(contextlib.ExitStack())
            with _errors_of(part):
                with self._times.timed("fetch"):
                    contents = await self._fetcher.fetch(part, inputs, request.budget)
                encoded = EncodedMedia(part, budget, contents)
                key = encoded.key(request.tenant)
                lease = self._cache.find(key)
                if lease is None:
                    expected = await self._jobs.read_headers(encoded)
                else:
                    request.until_failed.callback(lease.release)
                    inputs.close()
                    expected = (await lease.ready()).prepared
                request.budget.add(index, expected)
            return _FetchedPart(encoded, key, inputs, expected, lease)

    async def _decode(self, index: int, fetched: _FetchedPart, request: _Request) -> PreparedMedia:
        """Decode a part where it is not in the cache."""
        part = fetched.encoded.part
        async with request.slots:
            lease = fetched.lease or self._cache.lease(
                fetched.key,
                lambda frames: self._jobs.decode(fetched.encoded, fetched.expected, frames),
                inputs=fetched.inputs.pop_all(),
            )
            request.until_failed.callback(lease.release)
            if isinstance(part.source, LocalFile):
                lease.made_of(Path(part.source.path))
            request.progress.follow(index, lease.frames)
            with _errors_of(part):
                cached = await lease.ready()
                request.budget.add(index, cached.prepared)
            return _prepared_media(part, cached, lease)


@contextlib.contextmanager
def _errors_of(part: MediaPart) -> Iterator[None]:
    """Turn errors of an image or video into API errors that name the request field of `part`.

    Several requests may wait for the same work and get the same error; each names its own field.
    """
    try:
        yield
    except MediaError as error:
        raise _api_error(error, part) from error
    except DeadlineError as error:
        raise DeadlineError(error.message, param=part.param) from error


def _api_error(error: MediaError, part: MediaPart) -> ApiError:
    error_type = NotFoundError if error.code == "media_file_not_found" else BadRequestError
    param = part.param if error.limit is None else part.limit_params.get(error.limit, part.param)
    return error_type(error.message, param=param, code=error.code.replace("media", part.modality))


def _prepared_media(part: MediaPart, cached: CachedMedia, lease: CacheLease) -> PreparedMedia:
    prepared = cached.prepared
    return PreparedMedia(
        modality=part.seen_as,
        grid=Grid(*prepared.grid),
        digest=lease.key,
        path=str(cached.patches.path),
        source_size=Size(*prepared.source_size),
        size=Size(*prepared.size),
        release=lease.release,
        frame_times_s=tuple(prepared.frame_times_s),
        effective_fps=prepared.effective_fps,
        notes=tuple(prepared.notes),
    )
