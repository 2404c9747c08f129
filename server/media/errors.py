"""The one error of an image or video that cannot be used. It knows nothing of HTTP.

`server/media/preprocessor.py` turns it into the API's error, with the request field at fault.
"""

from typing import Literal

MediaErrorCode = Literal[
    "empty_media_file",
    "failed_to_download_media",
    "invalid_base64_media",
    "invalid_media_aspect_ratio",
    "invalid_media_format",
    "invalid_media_frames",
    "invalid_media_mode",
    "invalid_media_url",
    "invalid_value",
    "media_file_not_found",
    "media_file_too_large",
    "media_parse_error",
    "media_too_large",
    "media_too_long",
    "request_limit_exceeded",
    "unsupported_media_codec",
]
"""What clients read, `media` standing for `image` or `video`; `server/core/error_codes.py` says what each one means."""


class MediaError(Exception):
    """An image or video cannot be used.

    Args:
        code: why, for programs.
        message: why, for people; no paths or addresses.
        limit: the field of `MediaLimits` at fault, where it is not the image or video itself.
    """

    def __init__(self, code: MediaErrorCode, message: str, *, limit: str | None = None) -> None:
        """Keep what the API's error is made from."""
        super().__init__(message)
        self.code: MediaErrorCode = code
        self.message = message
        self.limit = limit
