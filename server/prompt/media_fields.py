"""Request fields that limit all images and videos of a request at once, under vLLM's names. Pure.

A limit of a part itself wins. Sizes and frames stay within the server's own bounds (`server/media/budget.py`).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from model_executor.processor.geometry import VIDEO_MAX_FRAMES
from server.api.base_models import MAX_FRAMES, RequestModel, bounded
from server.core.errors import BadRequestError
from server.media.types import MediaPart
from server.prompt.messages import MAX_FPS, MAX_INTEGER

_Pixels = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
_Fps = Annotated[float, Field(gt=0, le=MAX_FPS)]
_COUNTS = ("nframes", "min_frames", "max_frames", "fps")
"""Limits of a part that say how many frames it has, so that none of the request does."""


class ProcessorSize(RequestModel):
    """The bounds of an area as transformers writes them for this model: in pixels, whatever the names say."""

    shortest_edge: _Pixels | None = None
    """As `min_pixels`."""
    longest_edge: _Pixels | None = None
    """As `max_pixels`."""


class ProcessorKwargs(RequestModel):
    """What vLLM hands to the model's processor."""

    min_pixels: _Pixels | None = None
    """Lower limit of the area the model sees of each image, and of each frame."""
    max_pixels: _Pixels | None = None
    """Upper limit of the area the model sees of each image, and of each frame."""
    size: ProcessorSize | None = None
    """The same limits by other names; `min_pixels` and `max_pixels` win."""
    fps: (
        Annotated[
            Annotated[_Fps, Tag("<one>")] | Annotated[list[_Fps], bounded(MAX_FRAMES, least=1), Tag("<each>")],
            Discriminator(lambda value: "<each>" if isinstance(value, list) else "<one>"),
        ]
        | None
    ) = None
    """Frames sampled per second of each video, or a list with one number per video."""


class VideoKwargs(RequestModel):
    """What vLLM hands to the reader of videos."""

    num_frames: Annotated[int, Field(ge=-1, le=MAX_INTEGER)] | None = None
    """Frames sampled from each video; with `fps` the most. 0 or -1: no such limit."""
    fps: _Fps | None = None
    """Frames sampled per second of each video."""


class IoKwargs(RequestModel):
    """What vLLM hands to the readers of media."""

    video: VideoKwargs | None = None


class MediaFields(RequestModel):
    """The fields of every request that may bring media."""

    mm_processor_kwargs: ProcessorKwargs | None = None
    """Limits of all images and videos of the request; those of a part itself win."""
    media_io_kwargs: IoKwargs | None = None
    """How the frames of all videos of the request are sampled; limits of a part itself win."""

    def limited(self, media: Sequence[MediaPart]) -> tuple[MediaPart, ...]:
        """The media of the request with the limits these fields set.

        Args:
            media: as the parts describe them.

        Raises:
            BadRequestError: `fps` is a list and has not one number per video.
        """
        if self.mm_processor_kwargs is None and self.media_io_kwargs is None:
            return tuple(media)
        rates = self._rates(sum(part.modality == "video" for part in media))
        return tuple(
            _completed(part, self._areas())
            if part.modality == "image"
            else _completed(part, {**self._areas(), **self._frames(part, next(rates))})
            for part in media
        )

    def _rates(self, num_videos: int) -> Iterator[float | None]:
        """`mm_processor_kwargs.fps` of each video."""
        fps = None if self.mm_processor_kwargs is None else self.mm_processor_kwargs.fps
        if isinstance(fps, list) and len(fps) != num_videos:
            param = "mm_processor_kwargs.fps"
            raise BadRequestError(
                f"'{param}' has {len(fps)} numbers for {num_videos} videos.", param=param, code="invalid_value"
            )
        return iter(fps if isinstance(fps, list) else [fps] * num_videos)

    def _areas(self) -> dict[str, tuple[Any, str]]:
        kwargs = self.mm_processor_kwargs
        if kwargs is None:
            return {}
        size = kwargs.size or ProcessorSize()
        place = "mm_processor_kwargs"
        return {
            "min_pixels": (size.shortest_edge, f"{place}.size.shortest_edge")
            if kwargs.min_pixels is None
            else (kwargs.min_pixels, f"{place}.min_pixels"),
            "max_pixels": (size.longest_edge, f"{place}.size.longest_edge")
            if kwargs.max_pixels is None
            else (kwargs.max_pixels, f"{place}.max_pixels"),
        }

    def _frames(self, part: MediaPart, rate: float | None) -> dict[str, tuple[Any, str]]:
        """How the frames of a video are sampled, each limit with its field."""
        if any(getattr(part.limits, name) is not None for name in _COUNTS):
            return {}
        video = (self.media_io_kwargs.video if self.media_io_kwargs else None) or VideoKwargs()
        place = "media_io_kwargs.video"
        fps = (rate, "mm_processor_kwargs.fps") if video.fps is None else (video.fps, f"{place}.fps")
        if isinstance(part.source, tuple):  # its frames are sampled already
            return {"fps": fps}
        if video.num_frames is None:
            return {"fps": fps}
        if video.num_frames <= 0:
            return {"fps": fps} if fps[0] is not None else {"nframes": (VIDEO_MAX_FRAMES, f"{place}.num_frames")}
        # One frame is shown twice, as that of a video that has no more.
        most = max(2, video.num_frames)
        return {"max_frames" if fps[0] is not None else "nframes": (most, f"{place}.num_frames"), "fps": fps}


def _completed(part: MediaPart, limits: dict[str, tuple[Any, str]]) -> MediaPart:
    """A part with limits it does not set itself."""
    added = {
        name: (value, param)
        for name, (value, param) in limits.items()
        if value is not None and getattr(part.limits, name) is None
    }
    return dataclasses.replace(
        part,
        limits=dataclasses.replace(part.limits, **{name: value for name, (value, _) in added.items()}),
        limit_params={**part.limit_params, **{name: param for name, (_, param) in added.items()}},
    )
