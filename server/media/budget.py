"""What one part may cost: the client's wishes, checked, and clamped by the server's limits.

Pure. Nonsense (negative, huge, a minimum above its maximum, a clip's field on a picture) is refused by name; anything
sensible above a limit of the server is taken as that limit.
"""

import math
from dataclasses import dataclass, fields

from model_executor.processor.geometry import FACTOR_PX, TOKEN_PX
from server.core.errors import BadRequestError
from server.core.settings import MediaSettings
from server.media.messages import ClipBudget, ImageBudget
from server.media.types import MediaPart, PixelLimits

MAX_CLIENT_INTEGER = 2**31 - 1
MAX_CLIENT_FPS = 1_000.0

_CLIP_ONLY = ("total_pixels", "fps", "min_frames", "max_frames", "video_start_s", "video_end_s")
_NOT_FOR_FRAME_LISTS = ("min_frames", "max_frames", "video_start_s", "video_end_s")


@dataclass(frozen=True, slots=True)
class CheckpointLimits:
    """Pixel limits of the checkpoint, per picture and per frame of a clip."""

    image_min_pixels: int
    image_max_pixels: int
    video_min_pixels: int
    video_max_pixels: int


def image_budget(part: MediaPart, settings: MediaSettings, checkpoint: CheckpointLimits) -> ImageBudget:
    """The budget of a picture.

    Raises:
        BadRequestError: a limit is nonsense, or belongs to clips.
    """
    limits = part.limits
    _check(part)
    for name in _CLIP_ONLY:
        if getattr(limits, name) is not None:
            raise BadRequestError(f"{_wire(name)} is for videos, not for pictures.", param=part.param)
    top = _least(limits.max_pixels, settings.max_image_pixels, checkpoint.image_max_pixels)
    floor = checkpoint.image_min_pixels if limits.min_pixels is None else limits.min_pixels
    return ImageBudget(
        min_pixels=min(floor, top),
        max_pixels=top,
        resized=_resized(part),
        max_source_pixels=settings.max_source_pixels,
    )


def clip_budget(part: MediaPart, settings: MediaSettings, checkpoint: CheckpointLimits) -> ClipBudget:
    """The budget of a clip.

    Raises:
        BadRequestError: a limit is nonsense, or a list of frames is longer than the limit or brings fields that do
            not apply to it.
    """
    limits = part.limits
    _check(part)
    # Every slice of two frames costs a token at least.
    max_frames = min(settings.max_video_frames, 2 * settings.max_video_tokens)
    if isinstance(part.source, tuple):
        _check_frame_list(part, part.source, max_frames)
    return ClipBudget(
        fps=settings.video_fps if limits.fps is None else limits.fps,
        min_frames=settings.video_min_frames if limits.min_frames is None else limits.min_frames,
        max_frames=_least(limits.max_frames, max_frames),
        min_pixels=checkpoint.video_min_pixels if limits.min_pixels is None else limits.min_pixels,
        max_pixels=_least(limits.max_pixels, settings.max_video_pixels, checkpoint.video_max_pixels),
        total_pixels=_least(limits.total_pixels, settings.max_video_tokens * TOKEN_PX),
        resized=_resized(part),
        start_s=limits.video_start_s,
        end_s=limits.video_end_s,
        max_s=settings.max_video_s,
        max_source_pixels=settings.max_source_pixels,
    )


def _check(part: MediaPart) -> None:
    """Refuses what no part may ask for."""
    limits = part.limits
    for field in fields(PixelLimits):
        value = getattr(limits, field.name)
        if value is not None:
            _check_range(field.name, value, part.param)
    for low, high in (("min_pixels", "max_pixels"), ("min_frames", "max_frames"), ("video_start_s", "video_end_s")):
        lower, upper = getattr(limits, low), getattr(limits, high)
        if lower is not None and upper is not None and (lower > upper or (lower == upper and low == "video_start_s")):
            raise BadRequestError(f"{_wire(low)} {lower} is not below {_wire(high)} {upper}.", param=part.param)
    if (limits.resized_height is None) != (limits.resized_width is None):
        raise BadRequestError("resized_height and resized_width go together.", param=part.param)


def _check_range(name: str, value: float, param: str) -> None:
    lowest, highest = 1.0, float(MAX_CLIENT_INTEGER)
    if name == "fps":
        lowest, highest = 0.0, MAX_CLIENT_FPS
    elif name in ("video_start_s", "video_end_s"):
        lowest = 0.0
    elif name == "max_frames":
        lowest = 2.0
    if not math.isfinite(value) or not lowest <= value <= highest or (name == "fps" and value == 0):
        raise BadRequestError(f"{_wire(name)} {value} is not between {lowest:g} and {highest:.10g}.", param=param)


def _check_frame_list(part: MediaPart, frames: tuple[str, ...], max_frames: int) -> None:
    if not frames:
        raise BadRequestError("A list of frames needs at least one.", param=part.param)
    for name in _NOT_FOR_FRAME_LISTS:
        if getattr(part.limits, name) is not None:
            raise BadRequestError(f"{_wire(name)} does not apply to a list of frames.", param=part.param)
    if len(frames) > max_frames:
        raise BadRequestError(
            f"The clip has {len(frames)} frames; at most {max_frames} are taken "
            "(media.max_video_frames, media.max_video_tokens).",
            param=part.param,
        )


def _resized(part: MediaPart) -> tuple[int, int] | None:
    height, width = part.limits.resized_height, part.limits.resized_width
    if height is None or width is None:
        return None
    if min(height, width) < FACTOR_PX:
        raise BadRequestError(f"resized_height and resized_width are at least {FACTOR_PX}.", param=part.param)
    return height, width


def _least(wish: int | None, *limits: int) -> int:
    return min(limits) if wish is None else min(wish, *limits)


def _wire(name: str) -> str:
    """The name clients use: times carry no unit there."""
    return name.removesuffix("_s") if name.startswith("video_") else name
