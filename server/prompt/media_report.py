"""What was done to the media of a request, as the API tells it. Pure."""

from collections.abc import Sequence

from server.chat.response import Dimensions, MediaReport, Report
from server.media.types import MediaPart, PreparedMedia


def media_report(parts: Sequence[MediaPart], media: Sequence[PreparedMedia]) -> Report:
    """One entry per part; `media` is what the parts became, in the same order."""
    return Report(media=[_medium_report(part, medium) for part, medium in zip(parts, media, strict=True)])


def _medium_report(part: MediaPart, medium: PreparedMedia) -> MediaReport:
    video = medium.modality == "video"
    return MediaReport(
        param=part.param,
        modality=medium.modality,
        source_size=Dimensions(width=medium.source_size.width, height=medium.source_size.height),
        size=Dimensions(width=medium.size.width, height=medium.size.height),
        grid=(medium.grid.t, medium.grid.h, medium.grid.w),
        tokens=medium.grid.num_tokens,
        frames=len(medium.frame_times_s) if video else None,
        timestamps=[round(time_s, 6) for time_s in medium.frame_times_s] if video else None,
        fps=medium.effective_fps,
        notes=list(medium.notes),
    )
