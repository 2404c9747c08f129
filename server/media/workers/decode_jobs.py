"""The two jobs of one image or video: read its headers, then decode it into shared memory of the size they announce."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import blake3
import msgspec

from model_executor.processor.geometry import TEMPORAL_PATCH_FRAMES, Grid
from model_executor.processor.patches import row_bytes
from server.media.cache import CachedMedia
from server.media.errors import MediaError
from server.media.messages import ImageBudget, Job, Prepared, VideoBudget
from server.media.progress import FrameCount
from server.media.shared_memory import SharedDirectory, SharedFile, SharedMemoryFullError
from server.media.types import MediaPart
from server.media.workers.pool import MediaPool

HOPELESS = 2 * len(os.sched_getaffinity(0))
"""Media that are estimated to take so many times `media.decode_timeout_s` are not begun; estimates are of one core."""

_READ_BYTES_PER_S = 200e6
_IMAGE_PIXELS_PER_S = 60e6
_VIDEO_PIXELS_PER_S = 500e6


@dataclass(frozen=True, slots=True)
class EncodedMedia:
    """An image or video whose bytes have arrived."""

    part: MediaPart
    budget: ImageBudget | VideoBudget
    contents: Sequence[SharedFile]
    """One file, or one for each frame of a list."""

    def key(self, tenant: str) -> str:
        """Hex digest of everything the patches depend on, and of the tenant. JSON keeps the fields apart."""
        digests = [content.digest for content in self.contents]
        facts = [self.part.modality, isinstance(self.part.source, tuple), digests, self.budget, tenant]
        return blake3.blake3(msgspec.json.encode(facts)).hexdigest()


class JobRunner:
    """Has images and videos read and decoded by the workers.

    Args:
        pool: the workers.
        directory: where the patches go.
        timeout_s: `media.decode_timeout_s`.
    """

    def __init__(self, pool: MediaPool, directory: SharedDirectory, *, timeout_s: float) -> None:
        """Nothing runs yet."""
        self._pool = pool
        self._directory = directory
        self._timeout_s = timeout_s

    async def read_headers(self, encoded: EncodedMedia) -> Prepared:
        """What an image or video becomes, if its headers are correct.

        Raises:
            MediaError, ApiError: as `MediaPool.run`.
        """
        num_bytes = sum(content.num_bytes for content in encoded.contents)
        return await self._pool.run(self._job(encoded, output=None), estimate_s=num_bytes / _READ_BYTES_PER_S)

    async def decode(self, encoded: EncodedMedia, expected: Prepared, frames: FrameCount) -> CachedMedia:
        """The patches of an image or video.

        Args:
            encoded: what to decode.
            expected: the result of `read_headers`.
            frames: updated during the work.

        Raises:
            MediaError, ApiError: as `MediaPool.run`.
            SharedMemoryFullError: there is no room for the patches.
        """
        with ExitStack() as until_failed:
            output = self._directory.create_file(_patch_bytes(encoded.part, expected))
            until_failed.callback(output.release)
            job = self._job(encoded, output=str(output.path))
            estimate_s = _decoding_s(encoded.part, expected)
            if estimate_s > HOPELESS * self._timeout_s:
                height, width = expected.source_size
                raise MediaError(
                    "media_too_large",
                    f"Decoding would take about {estimate_s:.0f} s: {expected.num_source_frames} frames of "
                    f"{width}x{height} pixels (media.decode_timeout_s).",
                )
            run = partial(self._pool.run, job, estimate_s=estimate_s, frames=frames)
            try:
                prepared = await run()
            except SharedMemoryFullError:  # the machine has less than the limit allows
                if not self._directory.reclaim(self._directory.used_bytes):
                    raise
                prepared = await run()
            output.resize(_patch_bytes(encoded.part, prepared))
            until_failed.pop_all()
            return CachedMedia(prepared, output)

    def _job(self, encoded: EncodedMedia, *, output: str | None) -> Job:
        return Job(
            contents=[str(content.path) for content in encoded.contents],
            is_frame_list=isinstance(encoded.part.source, tuple),
            output=output,
            budget=encoded.budget,
            timeout_s=self._timeout_s,
        )


def _decoding_s(part: MediaPart, expected: Prepared) -> float:
    """Roughly the time that decoding takes one core; rather too low, so that no job is rejected without need."""
    height, width = expected.source_size
    is_video_stream = part.modality == "video" and not isinstance(part.source, tuple)
    pixels_per_s = _VIDEO_PIXELS_PER_S if is_video_stream else _IMAGE_PIXELS_PER_S
    return expected.num_source_frames * height * width / pixels_per_s


def _patch_bytes(part: MediaPart, prepared: Prepared) -> int:
    num_frames = TEMPORAL_PATCH_FRAMES if part.seen_as == "video" else 1
    return Grid(*prepared.grid).num_patches * row_bytes(num_frames)
