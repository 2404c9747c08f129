"""Media of a request, from URLs to patches in shared memory: the one thing the rest of the server sees of media.

1. Every part's wishes are checked and joined with the limits (`budget.py`), before anything is fetched.
2. The bytes behind its URL stream into shared memory and are hashed on the way (`contents.py`, `fetch.py`,
   `shared.py`).
3. Where the same content was prepared the same way for the same tenant, that is taken (`cache.py`); otherwise a worker
   reads the headers (`decoder.py`, `pool.py`, `worker.py`).
4. Once all parts are known, and are within what a request may bring together (`allowance.py`), workers decode, resize
   and patchify what was not in the cache.

Whatever goes wrong with one part, everything the request holds is given back.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model_executor.processor.geometry import VIDEO_FRAME_MAX_PIXELS, VIDEO_FRAME_MIN_PIXELS, Grid, Size
from server.core.concurrency import forever
from server.core.errors import BadRequestError, DeadlineError
from server.core.settings import MediaSettings
from server.media.budget import CheckpointLimits, clip_budget, image_budget
from server.media.cache import CachedMedium, CacheLease, CacheLoad, MediaCache
from server.media.fetch.fetcher import Fetcher
from server.media.fetch.part_bytes import Contents, together
from server.media.messages import ClipBudget, ImageBudget, Prepared
from server.media.progress import Progress
from server.media.request_limits import RequestBudget
from server.media.shared_memory import SharedFolder
from server.media.timings import Stage, StageLoad, StageTimes
from server.media.types import LocalFile, MediaPart, PreparedMedia
from server.media.workers.decode_jobs import Decoder, Encoded
from server.media.workers.pool import MediaPool

SHARED_MEMORY = Path("/dev/shm")

_EXPIRY_INTERVAL_S = 60.0
_PARALLEL_PARTS = 4
"""Parts of one request in work at the same time."""


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
    stages: Mapping[Stage, StageLoad] = field(default_factory=lambda: StageTimes().load)


@dataclass(slots=True)
class _Request:
    """What the parts of one request share."""

    tenant: str
    allowance: RequestBudget
    progress: Progress
    held: contextlib.ExitStack
    """Gives back what the parts hold."""
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PARALLEL_PARTS))


@dataclass(frozen=True, slots=True)
class _Known:
    """A part that has come, and is within what the request may bring."""

    medium: Encoded
    key: str
    inputs: contextlib.ExitStack
    """Gives the encoded bytes back."""
    announced: Prepared
    """What it becomes, if it holds what its headers say."""
    hold: CacheLease | None
    """Where it was in the cache."""


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
        self._times = StageTimes()
        # Idle media must not fill a small file system that others need, too (64 MiB is usual in containers).
        self._cache = MediaCache(min(settings.max_cache_bytes, shutil.disk_usage(shared_memory).total // 2))
        self._folder: SharedFolder
        self._contents: Contents
        self._pool: MediaPool
        self._decoder: Decoder

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
            self._pool = MediaPool(self._settings, self._folder.path, self._times)
            await self._pool.start()
            stack.push_async_callback(self._pool.close)
            self._decoder = Decoder(self._pool, self._folder, timeout_s=self._settings.timeout_s)
            expiring = asyncio.create_task(forever(self._expire, "the expiry of cached media"))
            stack.callback(expiring.cancel)
            self._stack = stack.pop_all()

    async def close(self) -> None:
        """Stop the workers and give the shared memory back, that of requests still running included."""
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
        """A reading, for metrics."""
        pool, cache = self._pool, self._cache.load
        used_bytes = self._folder.used_bytes - cache.idle_bytes
        return MediaLoad(
            pool.num_waiting, pool.num_running, pool.num_restarts, used_bytes, cache, dict(self._times.load)
        )

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
        asked = [(part, self._budget(part)) for part in parts]
        progress = progress or Progress()
        progress.begin(len(parts))
        try:
            with contextlib.ExitStack() as until_failed:
                request = _Request(tenant, RequestBudget(self._settings), progress, until_failed)
                known = await together(self._know(index, part, request) for index, part in enumerate(asked))
                prepared = await together(self._prepare_part(index, part, request) for index, part in enumerate(known))
                until_failed.pop_all()
                return prepared
        finally:
            progress.end()

    def _budget(self, part: MediaPart) -> ImageBudget | ClipBudget:
        if part.modality == "video":
            return clip_budget(part, self._settings, self._checkpoint)
        return image_budget(part, self._settings, self._checkpoint)

    async def _know(self, index: int, asked: tuple[MediaPart, ImageBudget | ClipBudget], request: _Request) -> _Known:
        """Fetch a part and learn what it becomes, from the cache or its headers."""
        part, budget = asked
        async with request.places:
            inputs = request.held.enter_context(contextlib.ExitStack())
            with self._times.timed("fetch"):
                contents = await self._contents.fetch(part, inputs, request.allowance)
            medium = Encoded(part, budget, contents)
            key = medium.key(request.tenant)
            hold = self._cache.find(key)
            if hold is None:
                announced = await self._decoder.look(medium)
            else:
                request.held.callback(hold.release)
                inputs.close()
                announced = (await hold.ready()).prepared
            request.allowance.take(index, announced, part.param)
            return _Known(medium, key, inputs, announced, hold)

    async def _prepare_part(self, index: int, known: _Known, request: _Request) -> PreparedMedia:
        """Decode a part where it is not in the cache."""
        async with request.places:
            hold = known.hold or self._cache.hold(
                known.key,
                lambda frames: self._decoder.decode(known.medium, known.announced, frames),
                inputs=known.inputs.pop_all(),
            )
            request.held.callback(hold.release)
            if isinstance(known.medium.part.source, LocalFile):
                hold.made_of(Path(known.medium.part.source.path))
            request.progress.follow(index, hold.frames)
            param = known.medium.part.param
            with _about(param):
                medium = await hold.ready()
            request.allowance.take(index, medium.prepared, param)
            return _prepared_media(known.medium.part, medium, hold)


@contextlib.contextmanager
def _about(param: str) -> Iterator[None]:
    """Errors of work that several requests wait for are about the part of whoever came first; here, of this one."""
    try:
        yield
    except (BadRequestError, DeadlineError) as error:
        raise type(error)(error.message, param=param, code=error.code) from error


def _prepared_media(part: MediaPart, medium: CachedMedium, hold: CacheLease) -> PreparedMedia:
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
