"""What all video decoders share: the `VideoSource` protocol, the plan of frames and sizes, and the writing. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from model_executor.processor.geometry import GeometryError, Grid, Size, video_grid, video_size
from model_executor.processor.patches import Pixels
from server.media.decode.frame_sampling import Sampling
from server.media.errors import MediaError
from server.media.messages import VideoBudget

FrameWriter = Callable[[int, Pixels], None]
"""Receives each frame's number, rising, and its pixels, uint8 [height, width, 3]."""
OpenWriter = Callable[[Grid], FrameWriter]
"""Called with the grid before the first frame, and once more if the video turns out to be damaged."""


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """What a video becomes."""

    grid: Grid
    source_size: Size
    """Upright, with square pixels, before resizing."""
    size: Size
    frame_times_s: tuple[float, ...]
    effective_fps: float | None
    num_source_frames: int
    """Frames from the first one sampled to the last, those in between included."""
    notes: tuple[str, ...]
    """What the client should know."""


class VideoSource(Protocol):
    """A video whose headers were read and accepted; constructing it decodes no more than the first frame."""

    plan: VideoPlan
    """What it becomes if its headers are correct."""

    def write(self, open_writer: OpenWriter) -> VideoPlan:
        """Decode the video.

        Args:
            open_writer: receives the frames.

        Returns:
            What it became; differs from `plan` where the video is damaged.

        Raises:
            MediaError: nothing of it decodes, or it exceeds a limit.
        """


class MissingFrameError(Exception):
    """The decoder did not return a sampled frame."""


def frame_size(source: Size, num_frames: int, budget: VideoBudget) -> Size:
    """The size that all frames of a video become.

    Raises:
        MediaError: the aspect ratio is above 200.
    """
    limits = {"min_pixels": budget.min_pixels, "max_pixels": budget.max_pixels, "total_pixels": budget.total_pixels}
    try:
        size = video_size(source.height, source.width, num_frames, **limits)
        return size if budget.resized is None else video_size(*budget.resized, num_frames, **limits)
    except GeometryError as error:
        raise MediaError("invalid_media_aspect_ratio", f"The video cannot be used: {error}.") from error


def plan_frames(sampling: Sampling, source_size: Size, budget: VideoBudget, notes: tuple[str, ...]) -> VideoPlan:
    """What a video becomes, if all of `sampling` decodes.

    Args:
        sampling: which frames.
        source_size: the video's.
        budget: what it may become.
        notes: what the client should know, in addition to what the sampling says.

    Raises:
        MediaError: as `frame_size`.
    """
    num_frames = len(sampling.indices)
    size = frame_size(source_size, num_frames, budget)
    return VideoPlan(
        grid=video_grid(size, num_frames),
        source_size=source_size,
        size=size,
        frame_times_s=sampling.times_s,
        effective_fps=sampling.effective_fps,
        num_source_frames=sampling.indices[-1] - sampling.indices[0] + 1,
        notes=(*notes, *sampling.notes),
    )


def write_frames(sampling: Sampling, frames: Iterator[tuple[int, Pixels]], write: FrameWriter) -> None:
    """Write the sampled frames of a video.

    Args:
        sampling: which frames.
        frames: each sampled frame's number and its pixels, once, in order.
        write: receives them, as often as they are sampled.

    Raises:
        MissingFrameError: there are too few.
    """
    positions = iter(range(len(sampling.indices)))
    for index, pixels in frames:
        for _ in range(sampling.indices.count(index)):
            write(next(positions), pixels)
    if next(positions, None) is not None:
        raise MissingFrameError


def dropped_frames_note(num_expected: int, num_decodable: int) -> tuple[str, ...]:
    """A note for the client where frames do not decode."""
    if num_decodable >= num_expected:
        return ()
    return (f"{num_expected - num_decodable} of {num_expected} frames do not decode and were left out.",)
