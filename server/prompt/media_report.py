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
    """One entry per image and video, also where a video is seen as several images.

    Args:
        parts: of the request.
        media: what the parts became, in the same order.
        box_unit: the family's.
    """
    entries: list[tuple[MediaPart, list[PreparedMedia]]] = []
    for part, item in zip(parts, media, strict=True):
        if part.frame is not None and part.frame[0] > 0:
            entries[-1][1].append(item)
        else:
            entries.append((part, [item]))
    return tuple(_report(part, items, box_unit) for part, items in entries)


def _report(part: MediaPart, items: Sequence[PreparedMedia], box_unit: BoxUnit) -> MediaReport:
    video, item = part.modality == "video", items[0]
    times_s = [time_s for each in items for time_s in each.frame_times_s]
    size = Dimensions(width=item.size.width, height=item.size.height)
    return MediaReport(
        param=part.param,
        modality=part.modality,
        source_size=Dimensions(width=item.source_size.width, height=item.source_size.height),
        size=size,
        box_extent=size if box_unit == "pixel" else Dimensions(width=1000, height=1000),
        grid=(sum(each.grid.t for each in items), item.grid.h, item.grid.w),
        tokens=sum(each.grid.num_tokens for each in items),
        frames=len(times_s) if video else None,
        timestamps=[round(time_s, 6) for time_s in times_s] if video else None,
        fps=item.effective_fps,
        notes=list(item.notes),
    )
