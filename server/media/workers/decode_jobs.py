"""One medium's work by a worker: read its headers, then decode it into shared memory that is as large as they say."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import blake3
import msgspec

from model_executor.processor.geometry import TEMPORAL_PATCH_FRAMES
from server.core.errors import BadRequestError
from server.media.cache import CachedMedium
from server.media.messages import PATCH_BYTES_PER_PIXEL, ClipBudget, ImageBudget, Job, Prepared
from server.media.progress import FrameCount
from server.media.shared_memory import SharedFile, SharedFolder, SharedMemoryFullError
from server.media.types import MediaPart
from server.media.workers.pool import MediaPool

HOPELESS = 2
"""Media that are estimated to take so many times `media.timeout_s` are not begun; estimates are low."""

_READ_BYTES_PER_S = 200e6
_PICTURE_PIXELS_PER_S = 60e6
_CLIP_PIXELS_PER_S = 500e6


@dataclass(frozen=True, slots=True)
class Encoded:
    """A medium that has come."""

    part: MediaPart
    budget: ImageBudget | ClipBudget
    contents: Sequence[SharedFile]
    """Its bytes: one file, or one for each frame of a list."""

    def key(self, tenant: str) -> str:
        """Hex digest over everything the patches depend on, and the tenant. JSON keeps the fields apart."""
        digests = [content.digest for content in self.contents]
        facts = [self.part.modality, isinstance(self.part.source, tuple), digests, self.budget, tenant]
        return blake3.blake3(msgspec.json.encode(facts)).hexdigest()


class Decoder:
    """Has media read and decoded.

    Args:
        pool: the workers.
        folder: where the patches go.
        timeout_s: `media.timeout_s`.
    """

    def __init__(self, pool: MediaPool, folder: SharedFolder, *, timeout_s: float) -> None:
        """See the class."""
        self._pool = pool
        self._folder = folder
        self._timeout_s = timeout_s

    async def look(self, medium: Encoded) -> Prepared:
        """What a medium becomes, if it holds what its headers say.

        Raises:
            ApiError: as `MediaPool.run`.
        """
        num_bytes = sum(content.num_bytes for content in medium.contents)
        job = self._job(medium, output=None)
        return await self._pool.run(job, estimate_s=num_bytes / _READ_BYTES_PER_S, param=medium.part.param)

    async def decode(self, medium: Encoded, announced: Prepared, frames: FrameCount) -> CachedMedium:
        """A medium's patches.

        Args:
            medium: what to decode.
            announced: what `look` said.
            frames: kept up to date meanwhile.

        Raises:
            ApiError: as `MediaPool.run`.
            SharedMemoryFullError: there is no room for the patches.
        """
        with ExitStack() as until_failed:
            output = self._folder.lease(_patch_bytes(medium.part, announced))
            until_failed.callback(output.release)
            job = self._job(medium, output=str(output.path))
            estimate_s = _decoding_s(medium.part, announced)
            if estimate_s > HOPELESS * self._timeout_s:
                raise BadRequestError(
                    f"Decoding it would take about {estimate_s:.0f} s: {announced.num_source_frames} frames of "
                    f"{announced.source_size[1]}x{announced.source_size[0]} pixels (media.timeout_s).",
                    param=medium.part.param,
                )
            run = partial(self._pool.run, job, estimate_s=estimate_s, param=medium.part.param, frames=frames)
            try:
                prepared = await run()
            except SharedMemoryFullError:  # the machine has less than the ledger allows
                if not self._folder.reclaim(self._folder.used_bytes):
                    raise
                prepared = await run()
            output.resize(_patch_bytes(medium.part, prepared))
            until_failed.pop_all()
            return CachedMedium(prepared, output)

    def _job(self, medium: Encoded, *, output: str | None) -> Job:
        return Job(
            contents=[str(content.path) for content in medium.contents],
            is_frame_list=isinstance(medium.part.source, tuple),
            output=output,
            budget=medium.budget,
            timeout_s=self._timeout_s,
        )


def _decoding_s(part: MediaPart, announced: Prepared) -> float:
    """Roughly what decoding costs one core; rather too little, so that nobody is refused whose turn would come."""
    height, width = announced.source_size
    is_video_stream = part.modality == "video" and not isinstance(part.source, tuple)
    pixels_per_s = _CLIP_PIXELS_PER_S if is_video_stream else _PICTURE_PIXELS_PER_S
    return announced.num_source_frames * height * width / pixels_per_s


def _patch_bytes(part: MediaPart, prepared: Prepared) -> int:
    num_frames = TEMPORAL_PATCH_FRAMES if part.modality == "video" else 1
    height, width = prepared.size
    return PATCH_BYTES_PER_PIXEL * num_frames * prepared.grid[0] * height * width
