"""Limits of all images and videos of one request together: bytes, pixels, frames, seconds, tokens.

Bytes are counted while they are fetched; the rest after a part's headers are read, before anything of the request is
decoded. The part that exceeds a limit is the one that is rejected.
"""

import math

from model_executor.processor.geometry import Grid
from server.core.settings import MediaSettings
from server.media.errors import MediaError
from server.media.messages import Prepared


class RequestBudget:
    """The sums of one request.

    Args:
        settings: the limits.
    """

    def __init__(self, settings: MediaSettings) -> None:
        """All sums are zero."""
        self._settings = settings
        self._num_bytes = 0
        self._parts: dict[int, Prepared] = {}

    def add_bytes(self, num_bytes: int) -> None:
        """Count encoded bytes as they arrive.

        Raises:
            MediaError: they are too many.
        """
        self._num_bytes += num_bytes
        limit = self._settings.max_request_bytes
        if self._num_bytes > limit:
            raise MediaError(
                "request_limit_exceeded",
                f"This part brings the request's media to more than {limit} bytes (media.max_request_bytes).",
            )

    def add(self, index: int, prepared: Prepared) -> None:
        """Count a part; once more, in place of the first count, after it was decoded.

        Args:
            index: which part.
            prepared: what it becomes, by its headers or as decoded.

        Raises:
            MediaError: a sum is too large.
        """
        settings = self._settings
        self._parts[index] = prepared
        parts = self._parts.values()
        pixels = sum(math.prod(part.source_size) for part in parts)
        frames = sum(len(part.frame_times_s) for part in parts)
        duration_s = sum(len(part.frame_times_s) / part.effective_fps for part in parts if part.effective_fps)
        tokens = sum(Grid(*part.grid).num_tokens for part in parts)
        for value, limit, unit, name in (
            (pixels, settings.max_request_pixels, "pixels before resizing", "max_request_pixels"),
            (frames, settings.max_request_frames, "sampled frames", "max_request_frames"),
            (duration_s, settings.max_request_s, "seconds of video", "max_request_s"),
            (tokens, settings.max_request_tokens, "tokens", "max_request_tokens"),
        ):
            if value > limit:
                raise MediaError(
                    "request_limit_exceeded",
                    f"This part brings the request's media to {value:.10g} {unit}; the limit is {limit:.10g} "
                    f"(media.{name}).",
                )
