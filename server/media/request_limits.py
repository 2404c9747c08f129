"""What all media of one request may cost together, added up as they come: the part that passes a limit ends it.

Bytes count while they are fetched; the rest once a part's headers were read, before anything of the request is decoded.
"""

import math

from model_executor.processor.geometry import Grid
from server.core.errors import BadRequestError
from server.core.settings import MediaSettings
from server.media.messages import Prepared


class RequestBudget:
    """The sums of one request.

    Args:
        settings: the limits.
    """

    def __init__(self, settings: MediaSettings) -> None:
        self._settings = settings
        self._num_bytes = 0
        self._parts: dict[int, Prepared] = {}

    def take_bytes(self, num_bytes: int, param: str) -> None:
        """Count encoded bytes.

        Args:
            num_bytes: how many have come.
            param: the part they belong to, for the error.

        Raises:
            BadRequestError: they are too many.
        """
        self._num_bytes += num_bytes
        limit = self._settings.max_request_bytes
        if self._num_bytes > limit:
            raise BadRequestError(
                f"With this part, the request's media are larger than {limit} bytes together "
                "(media.max_request_bytes).",
                param=param,
            )

    def take(self, index: int, medium: Prepared, param: str) -> None:
        """Count a part: first as its headers have it, then, in place of that, as it came out of the decoder.

        Args:
            index: which part.
            medium: what is known of it.
            param: its field, for the error.

        Raises:
            BadRequestError: the sums are too large.
        """
        settings = self._settings
        self._parts[index] = medium
        parts = self._parts.values()
        pixels = sum(math.prod(part.source_size) for part in parts)
        frames = sum(len(part.frame_times_s) for part in parts)
        duration_s = sum(len(part.frame_times_s) / part.effective_fps for part in parts if part.effective_fps)
        tokens = sum(Grid(*part.grid).num_tokens for part in parts)
        for value, limit, unit, name in (
            (pixels, settings.max_request_pixels, "pixels before resizing", "max_request_pixels"),
            (frames, settings.max_request_frames, "sampled frames", "max_request_frames"),
            (duration_s, settings.max_request_s, "seconds of clips", "max_request_s"),
            (tokens, settings.max_request_tokens, "tokens", "max_request_tokens"),
        ):
            if value > limit:
                raise BadRequestError(
                    f"With this part, the request's media have {value:.10g} {unit} together; at most {limit:.10g} are "
                    f"taken (media.{name}).",
                    param=param,
                )
