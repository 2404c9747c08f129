"""What was done to the media of a request: sizes, frames, notes; reported by Chat and its preview. Pure."""

from collections.abc import Sequence
from typing import Literal

from model_executor.families.family import BoxUnit
from server.api.base_models import ResponseModel
from server.media.types import MediaPart, PreparedMedia


class Dimensions(ResponseModel):
    """Size in pixels."""

    width: int
    height: int


class MediaReport(ResponseModel):
    """What was done to one image or video."""

    param: str
    """The content part, such as `messages[0].content[1]`."""
    modality: Literal["image", "video"]
    source_size: Dimensions
    """As sent, upright."""
    size: Dimensions
    """As the model sees it."""
    box_extent: Dimensions
    """What corners of boxes in answers count to: 1000 on both sides, or `size`, as the model was trained."""
    grid: tuple[int, int, int]
    """Temporal slices, rows and columns of 14 px patches."""
    tokens: int
    """Tokens in the prompt, without the two delimiters."""
    frames: int | None
    """Sampled frames of a video."""
    timestamps: list[float] | None
    """Presentation time of each sampled frame, in seconds."""
    fps: float | None
    """Sampled frames per second of presentation time."""
    notes: list[str]
    """What a person should know."""


def media_report(
    parts: Sequence[MediaPart], media: Sequence[PreparedMedia], box_unit: BoxUnit
) -> tuple[MediaReport, ...]:
    """One entry per part.

    Args:
        parts: of the request.
        media: what the parts became, in the same order.
        box_unit: the family's.
    """
    return tuple(_report(part, item, box_unit) for part, item in zip(parts, media, strict=True))


def _report(part: MediaPart, item: PreparedMedia, box_unit: BoxUnit) -> MediaReport:
    video = item.modality == "video"
    size = Dimensions(width=item.size.width, height=item.size.height)
    return MediaReport(
        param=part.param,
        modality=item.modality,
        source_size=Dimensions(width=item.source_size.width, height=item.source_size.height),
        size=size,
        box_extent=size if box_unit == "pixel" else Dimensions(width=1000, height=1000),
        grid=(item.grid.t, item.grid.h, item.grid.w),
        tokens=item.grid.num_tokens,
        frames=len(item.frame_times_s) if video else None,
        timestamps=[round(time_s, 6) for time_s in item.frame_times_s] if video else None,
        fps=item.effective_fps,
        notes=list(item.notes),
    )
