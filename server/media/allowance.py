"""What all media of one request may cost together, added up as they come: the part that passes a limit ends it.

Bytes count while they are fetched; the rest once a part's header was read and the part prepared, before the next ones
are begun.
"""

from server.errors import BadRequestError
from server.media.part import PreparedMedia
from server.settings import MediaSettings


class Allowance:
    """The sums of one request.

    Args:
        settings: the limits.
    """

    def __init__(self, settings: MediaSettings) -> None:
        """See the class."""
        self._settings = settings
        self._num_bytes = 0
        self._num_pixels = 0
        self._num_frames = 0
        self._duration_s = 0.0
        self._num_tokens = 0

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

    def take(self, medium: PreparedMedia, param: str) -> None:
        """Count a prepared part.

        Args:
            medium: the part.
            param: its field, for the error.

        Raises:
            BadRequestError: the sums are too large.
        """
        settings = self._settings
        self._num_pixels += medium.source_size.height * medium.source_size.width
        self._num_frames += len(medium.frame_times_s)
        self._num_tokens += medium.grid.num_tokens
        if medium.effective_fps:
            self._duration_s += len(medium.frame_times_s) / medium.effective_fps
        for value, limit, unit, name in (
            (self._num_pixels, settings.max_request_pixels, "pixels before resizing", "max_request_pixels"),
            (self._num_frames, settings.max_request_frames, "sampled frames", "max_request_frames"),
            (self._duration_s, settings.max_request_s, "seconds of clips", "max_request_s"),
            (self._num_tokens, settings.max_request_tokens, "tokens", "max_request_tokens"),
        ):
            if value > limit:
                raise BadRequestError(
                    f"With this part, the request's media have {value:.10g} {unit} together; at most {limit:.10g} are "
                    f"taken (media.{name}).",
                    param=param,
                )
