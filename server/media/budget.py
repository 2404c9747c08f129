"""What one image or video may become: the client's limits, clamped by the server's and the checkpoint's. Pure.

Ranges are checked when the request is read (`server/prompt/messages.py`). What is left is rejected here, by the name of
the limit: limits that contradict each other, and limits of videos on an image. A limit above the server's is lowered.
"""

from dataclasses import dataclass
from typing import Any

from msgspec import structs

from model_executor.processor.geometry import TEMPORAL_PATCH_FRAMES, TOKEN_PX, Size
from server.core.settings import MediaSettings
from server.media.errors import MediaError
from server.media.messages import ImageBudget, VideoBudget
from server.media.types import MediaLimits, MediaPart

_VIDEO_ONLY = ("total_pixels", "fps", "nframes", "min_frames", "max_frames", "video_start", "video_end")
_NOT_FOR_FRAME_LISTS = ("nframes", "min_frames", "max_frames", "video_start", "video_end")


@dataclass(frozen=True, slots=True)
class CheckpointLimits:
    """Pixel limits of the checkpoint, per image and per frame of a video."""

    image_min_pixels: int
    image_max_pixels: int
    video_min_pixels: int
    video_max_pixels: int
    image_size: Size | None = None
    """The one size of all images, and of frames that are seen as images; None: within the limits."""


def image_budget(part: MediaPart, settings: MediaSettings, checkpoint: CheckpointLimits) -> ImageBudget:
    """The budget of an image.

    Raises:
        MediaError: two limits contradict each other, or one is for videos only.
    """
    limits = part.limits
    for name in _VIDEO_ONLY:
        if getattr(limits, name) is not None:
            raise MediaError("invalid_value", f"'{name}' applies to videos only; this is an image.", limit=name)
    _check_pairs(limits)
    if (size := checkpoint.image_size) is not None:
        area = size.height * size.width
        return ImageBudget(
            min_pixels=area,
            max_pixels=area,
            resized=(size.height, size.width),
            max_source_pixels=settings.max_source_pixels,
        )
    max_pixels = _least(limits.max_pixels, settings.max_image_pixels, checkpoint.image_max_pixels)
    min_pixels = checkpoint.image_min_pixels if limits.min_pixels is None else limits.min_pixels
    return ImageBudget(
        min_pixels=min(min_pixels, max_pixels),
        max_pixels=max_pixels,
        resized=_resized(limits),
        max_source_pixels=settings.max_source_pixels,
    )


def video_budget(part: MediaPart, settings: MediaSettings, checkpoint: CheckpointLimits) -> VideoBudget:
    """The budget of a video.

    Raises:
        MediaError: two limits contradict each other, or a list of frames is too long or has limits that do not apply
            to it.
    """
    limits = part.limits
    _check_pairs(limits)
    # Every slice of two frames costs at least one token.
    max_frames = min(settings.max_video_frames, TEMPORAL_PATCH_FRAMES * settings.max_video_tokens)
    if isinstance(part.source, tuple):
        _check_frame_list(part.source, limits, max_frames)
    least_frames, most_frames = _counts(limits)
    budget = VideoBudget(
        fps=settings.video_fps if limits.fps is None else limits.fps,
        min_frames=settings.video_min_frames if least_frames is None else least_frames,
        max_frames=_least(most_frames, max_frames),
        min_pixels=checkpoint.video_min_pixels if limits.min_pixels is None else limits.min_pixels,
        max_pixels=_least(limits.max_pixels, settings.max_video_pixels, checkpoint.video_max_pixels),
        total_pixels=_least(limits.total_pixels, settings.max_video_tokens * TOKEN_PX),
        resized=_resized(limits),
        video_start=limits.video_start,
        video_end=limits.video_end,
        max_s=settings.max_video_s,
        max_source_pixels=settings.max_source_pixels,
    )
    return budget if part.frame is None else _frame_budget(budget, part.frame, checkpoint.image_size)


def _frame_budget(budget: VideoBudget, frame: tuple[int, int], size: Size | None) -> VideoBudget:
    """The budget of one frame that is seen as an image."""
    changes: dict[str, Any] = {"only_frame": frame, "min_frames": frame[1], "max_frames": frame[1]}
    if size is not None:
        area = size.height * size.width
        changes |= {"min_pixels": area, "max_pixels": area, "resized": (size.height, size.width)}
        changes["total_pixels"] = area * frame[1]
    return structs.replace(budget, **changes)


def _check_pairs(limits: MediaLimits) -> None:
    for low, high in (("min_pixels", "max_pixels"), ("min_frames", "max_frames"), ("video_start", "video_end")):
        lower, upper = getattr(limits, low), getattr(limits, high)
        if lower is not None and upper is not None and (lower > upper or (lower == upper and low == "video_start")):
            raise MediaError("invalid_value", f"'{low}' ({lower}) must be below '{high}' ({upper}).", limit=low)
    for name, other in (("resized_height", "resized_width"), ("resized_width", "resized_height")):
        if getattr(limits, name) is not None and getattr(limits, other) is None:
            raise MediaError("invalid_value", f"'{name}' requires '{other}'.", limit=name)


def _counts(limits: MediaLimits) -> tuple[int | None, int | None]:
    """The least and the most frames the client requests; the same of a fixed number, which qwen-vl-utils rounds so."""
    if limits.nframes is None:
        return limits.min_frames, limits.max_frames
    for name in ("fps", "min_frames", "max_frames"):
        if getattr(limits, name) is not None:
            raise MediaError("invalid_value", f"'nframes' cannot be combined with '{name}'.", limit="nframes")
    num_frames = round(limits.nframes / TEMPORAL_PATCH_FRAMES) * TEMPORAL_PATCH_FRAMES
    return num_frames, num_frames


def _check_frame_list(frames: tuple[str, ...], limits: MediaLimits, max_frames: int) -> None:
    for name in _NOT_FOR_FRAME_LISTS:
        if getattr(limits, name) is not None:
            raise MediaError("invalid_value", f"'{name}' cannot be combined with a list of frames.", limit=name)
    if len(frames) > max_frames:
        raise MediaError(
            "media_too_long",
            f"The video has {len(frames)} frames; the limit is {max_frames} "
            "(media.max_video_frames, media.max_video_tokens).",
        )


def _resized(limits: MediaLimits) -> tuple[int, int] | None:
    if limits.resized_height is None or limits.resized_width is None:
        return None
    return limits.resized_height, limits.resized_width


def _least(requested: int | None, *limits: int) -> int:
    return min(limits) if requested is None else min(requested, *limits)
