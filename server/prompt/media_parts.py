"""Turns content parts that bring an image or a video into media parts: source, limits, the client's field. Pure."""

import re
from dataclasses import replace
from typing import Any

from model_executor.processor.geometry import TOKEN_PX, VIDEO_MAX_FRAMES
from server.core.errors import BadRequestError
from server.core.format_names import refusal
from server.core.mime import HEAD_BYTES, detect_modality
from server.media.errors import MediaError
from server.media.fetch.data_url import BLANKS, decoded
from server.media.types import LocalFile, MediaLimits, MediaPart
from server.prompt.messages import (
    FilePart,
    ImageLimits,
    ImagePart,
    ImageUrlPart,
    StoredFile,
    VideoLimits,
    VideoPart,
    VideoUrlPart,
)

LOW_DETAIL_TOKENS = 64
"""Most tokens of an image sent with `detail: low`."""

_JPEG_FRAMES = re.compile(r"data:video/jpeg; *base64 *", re.IGNORECASE)

Limits = tuple[MediaLimits, dict[str, str]]
"""A part's limits, and the request field of each."""


def media_part(part: ImageUrlPart | ImagePart | VideoUrlPart | VideoPart | FilePart, param: str) -> MediaPart:
    """A part of a Chat message.

    Args:
        part: what the client sent.
        param: the field it stands in: `messages[0].content[1]`.

    Raises:
        BadRequestError: a limit stands both next to a URL and inside its object, or a file's data are neither an
            image nor a video.
    """
    match part:
        case ImageUrlPart(image_url=image):
            limits = media_limits(part, param, image, nested="image_url", detail=image.detail)
            return MediaPart("image", image.url, f"{param}.image_url", *limits)
        case ImagePart():
            return MediaPart("image", part.image, f"{param}.image", *media_limits(part, param, detail=part.detail))
        case VideoUrlPart(video_url=video):
            limits = media_limits(part, param, video, nested="video_url")
            return MediaPart("video", video_source(video.url), f"{param}.video_url", *limits)
        case VideoPart():
            source = video_source(part.video) if isinstance(part.video, str) else tuple(part.video)
            return MediaPart("video", source, f"{param}.video", *media_limits(part, param))
        case FilePart(file=file):
            limits = media_limits(part, param, file, nested="file")
            if file.file_id is not None:
                return stored_part(file.file_id, f"{param}.file", limits)
            assert file.file_data is not None  # one of the two is there
            return inline_part(file.file_data, f"{param}.file", f"{param}.file.file_data", limits)


def stored_part(file: StoredFile, param: str, limits: Limits) -> MediaPart:
    """An uploaded file."""
    return MediaPart(file.modality, LocalFile(file.path), param, *limits)


def inline_part(url: str, param: str, data_param: str, limits: Limits) -> MediaPart:
    """A file in the request itself: an image or a video, as its content says.

    Args:
        url: a `data:` URL.
        param: the field of the file.
        data_param: the field of its data.
        limits: the client's.

    Raises:
        BadRequestError: it is neither an image nor a video.
    """
    beginning = _beginning(url)
    modality = detect_modality(beginning)
    if modality is None:
        raise BadRequestError(
            refusal(beginning)
            or "The file is not an image or video in a supported format, as data:MEDIA-TYPE;base64,DATA.",
            param=data_param,
            code="unsupported_file",
        )
    return MediaPart(modality, url, param, *limits)


def video_source(url: str) -> str | tuple[str, ...]:
    """The source of a video's URL; `data:video/jpeg;base64,A,B` is a list of frames, as vLLM's clients write them."""
    head, comma, frames = url.lstrip(BLANKS).partition(",")
    if not comma or not _JPEG_FRAMES.fullmatch(head):
        return url
    # Frames beyond what a video may have stay in one piece: there are too many in any case.
    return tuple(f"data:image/jpeg;base64,{frame}" for frame in frames.split(",", VIDEO_MAX_FRAMES))


def _beginning(url: str) -> bytes:
    """The first bytes of a `data:` URL; none where it cannot be decoded."""
    data = b""
    try:
        for piece in decoded(url.lstrip(BLANKS), slice_chars=HEAD_BYTES * 4):
            data += piece
            if len(data) >= HEAD_BYTES:
                break
    except MediaError:
        return b""
    return data[:HEAD_BYTES]


def media_limits(
    outer: ImageLimits, param: str, inner: ImageLimits | None = None, *, nested: str = "", detail: str = "auto"
) -> Limits:
    """The limits of a part, next to its URL or in the object that holds the URL, and the request field of each.

    Args:
        outer: the part.
        param: the field it stands in.
        inner: the object in it, where there is one.
        nested: the name of that object.
        detail: `low` caps the area.

    Raises:
        BadRequestError: a limit stands in both.
    """
    values: dict[str, Any] = {}
    params: dict[str, str] = {}
    for name in (VideoLimits if isinstance(outer, VideoLimits) else ImageLimits).model_fields:
        outer_value, inner_value = getattr(outer, name), getattr(inner, name, None)
        if outer_value is not None and inner_value is not None:
            raise BadRequestError(
                f"'{param}.{name}' cannot be combined with '{param}.{nested}.{name}'.",
                param=f"{param}.{name}",
                code="invalid_value",
            )
        if outer_value is not None:
            values[name], params[name] = outer_value, f"{param}.{name}"
        elif inner_value is not None:
            values[name], params[name] = inner_value, f"{param}.{nested}.{name}"
    limits = MediaLimits(**values)
    if detail == "low":
        cap = LOW_DETAIL_TOKENS * TOKEN_PX
        limits = replace(limits, max_pixels=min(limits.max_pixels or cap, cap))
    return limits, params
