"""A request's messages as turns to render and media to prepare. Pure.

Media are numbered from 0 in the order they stand, over the whole conversation; both results use that number.
"""

import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import from_json

from model_executor.processor.chatml import Call, Message, Role
from model_executor.processor.geometry import TOKEN_PX
from model_executor.processor.tokenizer import MediaPlaceholder
from server.core.errors import BadRequestError
from server.core.mime import HEAD_BYTES, detect_modality
from server.media.types import LocalFile, MediaLimits, MediaPart
from server.prompt.messages import (
    AnyMessage,
    AnyPart,
    AssistantMessage,
    FilePart,
    ImageLimits,
    ImagePart,
    ImageUrlPart,
    TextPart,
    VideoLimits,
    VideoPart,
    VideoUrlPart,
)
from server.tools.protocol import CalledFunction

LOW_DETAIL_TOKENS = 64
"""Most tokens of a picture sent with `detail: low`."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said, and what was shown."""

    turns: tuple[Message, ...]
    media: tuple[MediaPart, ...]
    """By `MediaPlaceholder.index`."""


def read_conversation(messages: list[AnyMessage]) -> Conversation:
    """Turns and media of a request's messages.

    Raises:
        BadRequestError: a limit stands both beside a URL and inside its object, or a file's data are neither a picture
            nor a clip.
    """
    media: list[MediaPart] = []
    turns: list[Message] = []
    for number, message in enumerate(messages):
        contents = [message.content] if isinstance(message.content, str) else message.content or []
        parts: list[str | MediaPlaceholder] = []
        for index, content in enumerate(contents):
            if isinstance(content, str):
                parts.append(content)
            elif isinstance(content, TextPart):
                parts.append(content.text)
            else:
                medium = _medium(content, f"messages[{number}].content[{index}]")
                parts.append(MediaPlaceholder(len(media), medium.modality))
                media.append(medium)
        made = (message.tool_calls if isinstance(message, AssistantMessage) else None) or []
        calls = tuple(_call(call.function) for call in made)
        turns.append(Message(_ROLES[message.role], tuple(parts), calls))
    return Conversation(tuple(turns), tuple(media))


def _call(called: CalledFunction) -> Call:
    try:
        arguments = from_json(called.arguments, allow_inf_nan=False)
    except ValueError:
        arguments = None  # a model wrote it; what it wrote is shown to it as it is
    return Call(called.name, arguments if isinstance(arguments, dict) else called.arguments)


def _medium(part: AnyPart, param: str) -> MediaPart:
    match part:
        case ImageUrlPart():
            limits, limit_params = _limits(param, part, part.image_url, nested="image_url")
            if part.image_url.detail == "low":
                limits = _low_detail(limits)
            return MediaPart("image", part.image_url.url, f"{param}.image_url", limits, limit_params)
        case ImagePart():
            limits, limit_params = _limits(param, part)
            if part.detail == "low":
                limits = _low_detail(limits)
            return MediaPart("image", part.image, f"{param}.image", limits, limit_params)
        case VideoUrlPart():
            limits, limit_params = _limits(param, part, part.video_url, nested="video_url")
            return MediaPart("video", part.video_url.url, f"{param}.video_url", limits, limit_params)
        case VideoPart():
            source = part.video if isinstance(part.video, str) else tuple(part.video)
            return MediaPart("video", source, f"{param}.video", *_limits(param, part))
        case FilePart():
            return _file(part, f"{param}.file", *_limits(param, part, part.file, nested="file"))
        case _:
            raise AssertionError(f"{param} is text")


def _file(part: FilePart, param: str, limits: MediaLimits, limit_params: Mapping[str, str]) -> MediaPart:
    """An image or a video, as its content says."""
    stored, url = part.file.file_id, part.file.file_data
    if stored is not None:
        return MediaPart(stored.modality, LocalFile(stored.path), param, limits, limit_params)
    assert url is not None  # one of the two is there
    start = url.find(",") + 1
    text = url[start : start + HEAD_BYTES // 3 * 4]
    try:
        modality = detect_modality(binascii.a2b_base64(text))
    except (binascii.Error, ValueError):
        modality = None
    if modality is None:
        raise BadRequestError(
            "The file is not an image or video in a supported format, as data:MEDIA-TYPE;base64,DATA.",
            param=f"{param}.file_data",
            code="unsupported_file",
        )
    return MediaPart(modality, url, param, limits, limit_params)


def _limits(
    param: str, outer: ImageLimits, inner: ImageLimits | None = None, *, nested: str = ""
) -> tuple[MediaLimits, dict[str, str]]:
    """The limits of a part, next to the URL or in its object, and the request field of each."""
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
    return MediaLimits(**values), params


def _low_detail(limits: MediaLimits) -> MediaLimits:
    cap = LOW_DETAIL_TOKENS * TOKEN_PX
    return replace(limits, max_pixels=min(limits.max_pixels or cap, cap))
