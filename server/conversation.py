"""A request's messages as turns to render and media to prepare. Pure.

Media are numbered from 0 in the order they stand, over the whole conversation; both results use that number.
"""

from dataclasses import dataclass, replace
from typing import Any

from model_executor.geometry import TOKEN_PX
from model_executor.tokens import MediaSlot
from server.chatml import Message, Role
from server.errors import BadRequestError
from server.media.part import MediaPart, PixelLimits
from server.protocol.content import (
    AnyMessage,
    AnyPart,
    ImageLimits,
    ImagePart,
    ImageUrlPart,
    TextPart,
    VideoLimits,
    VideoPart,
    VideoUrlPart,
)

LOW_DETAIL_TOKENS = 64
"""Most tokens of a picture sent with `detail: low`."""

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_RENAMED = {"video_start": "video_start_s", "video_end": "video_end_s"}


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said, and what was shown."""

    turns: tuple[Message, ...]
    media: tuple[MediaPart, ...]
    """By `MediaSlot.index`."""


def read_conversation(messages: list[AnyMessage]) -> Conversation:
    """Turns and media of a request's messages.

    Raises:
        BadRequestError: a limit stands both beside a URL and inside its object.
    """
    media: list[MediaPart] = []
    turns: list[Message] = []
    for number, message in enumerate(messages):
        contents = [message.content] if isinstance(message.content, str) else message.content
        parts: list[str | MediaSlot] = []
        for index, content in enumerate(contents):
            if isinstance(content, str):
                parts.append(content)
            elif isinstance(content, TextPart):
                parts.append(content.text)
            else:
                medium = _medium(content, f"messages[{number}].content[{index}]")
                parts.append(MediaSlot(len(media), medium.modality))
                media.append(medium)
        turns.append(Message(_ROLES[message.role], tuple(parts)))
    return Conversation(tuple(turns), tuple(media))


def _medium(part: AnyPart, param: str) -> MediaPart:
    match part:
        case ImageUrlPart():
            limits = _limits(param, part, part.image_url, nested="image_url")
            if part.image_url.detail == "low":
                limits = _low_detail(limits)
            return MediaPart("image", part.image_url.url, f"{param}.image_url", limits)
        case ImagePart():
            return MediaPart("image", part.image, f"{param}.image", _limits(param, part))
        case VideoUrlPart():
            limits = _limits(param, part, part.video_url, nested="video_url")
            return MediaPart("video", part.video_url.url, f"{param}.video_url", limits)
        case VideoPart():
            source = part.video if isinstance(part.video, str) else tuple(part.video)
            return MediaPart("video", source, f"{param}.video", _limits(param, part))
        case _:
            raise AssertionError(f"{param} is text")


def _limits(param: str, beside: ImageLimits, inside: ImageLimits | None = None, *, nested: str = "") -> PixelLimits:
    """The limits of a part, wherever they stand."""
    given: dict[str, Any] = {}
    for name in (VideoLimits if isinstance(beside, VideoLimits) else ImageLimits).model_fields:
        outer, inner = getattr(beside, name), getattr(inside, name, None)
        if outer is not None and inner is not None:
            raise BadRequestError(
                f"'{param}.{name}' is given twice, here and in '{nested}'.",
                param=f"{param}.{name}",
                code="invalid_value",
            )
        value = inner if outer is None else outer
        if value is not None:
            given[_RENAMED.get(name, name)] = value
    return PixelLimits(**given)


def _low_detail(limits: PixelLimits) -> PixelLimits:
    cap = LOW_DETAIL_TOKENS * TOKEN_PX
    return replace(limits, max_pixels=min(limits.max_pixels or cap, cap))
