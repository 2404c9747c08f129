"""What is the same for clips of every kind: how large their frames become, and how they are handed over. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from model_executor.processor.geometry import GeometryError, Grid, Size, video_grid, video_size
from model_executor.processor.patches import Pixels
from server.core.errors import BadRequestError
from server.media.decode.frame_sampling import Sampling
from server.media.messages import ClipBudget

FrameWriter = Callable[[int, Pixels], None]
"""Takes each frame's number and its pixels, uint8 [height, width, 3]; numbers rise."""
OpenWriter = Callable[[Grid], FrameWriter]
"""Called with the grid before the first frame, and once more should the clip turn out damaged."""


@dataclass(frozen=True, slots=True)
class Clip:
    """What a clip becomes."""

    grid: Grid
    source_size: Size
    """Upright, with square pixels, before resizing."""
    size: Size
    frame_times_s: tuple[float, ...]
    effective_fps: float | None
    num_source_frames: int
    """Frames from the first one sampled to the last, those between included."""
    notes: tuple[str, ...]
    """What a person should know."""


class ClipSource(Protocol):
    """A clip whose headers were read and accepted; making one decodes no more than the first frame."""

    announced: Clip
    """What it becomes if it holds what its headers say."""

    def write(self, open_writer: OpenWriter) -> Clip:
        """Decode it.

        Args:
            open_writer: takes the frames.

        Returns:
            What it became; where it is damaged, that is not what was announced.

        Raises:
            BadRequestError: damaged throughout, or over a limit.
        """


class MissingFrameError(Exception):
    """A chosen frame did not come out of the decoder."""


def clip_size(source: Size, num_frames: int, budget: ClipBudget) -> Size:
    """The size all frames of a clip become.

    Raises:
        BadRequestError: the aspect ratio is above 200.
    """
    limits = {"min_pixels": budget.min_pixels, "max_pixels": budget.max_pixels, "total_pixels": budget.total_pixels}
    try:
        size = video_size(source.height, source.width, num_frames, **limits)
        return size if budget.resized is None else video_size(*budget.resized, num_frames, **limits)
    except GeometryError as error:
        raise BadRequestError(f"The clip cannot be used: {error}.") from error


def planned(sampling: Sampling, source_size: Size, budget: ClipBudget, notes: tuple[str, ...]) -> Clip:
    """What a clip becomes, if all of `sampling` decodes.

    Args:
        sampling: which frames.
        source_size: the clip's.
        budget: what it may become.
        notes: what a person should know, besides what the sampling says.

    Raises:
        BadRequestError: as `clip_size`.
    """
    num_frames = len(sampling.indices)
    size = clip_size(source_size, num_frames, budget)
    return Clip(
        grid=video_grid(size, num_frames),
        source_size=source_size,
        size=size,
        frame_times_s=sampling.times_s,
        effective_fps=sampling.effective_fps,
        num_source_frames=sampling.indices[-1] - sampling.indices[0] + 1,
        notes=(*notes, *sampling.notes),
    )


def write_frames(sampling: Sampling, frames: Iterator[tuple[int, Pixels]], write: FrameWriter) -> None:
    """Hand a clip's chosen frames over.

    Args:
        sampling: which frames.
        frames: each chosen frame's number and its pixels, once, in order.
        write: takes them, as often as they were chosen.

    Raises:
        MissingFrameError: there are too few.
    """
    positions = iter(range(len(sampling.indices)))
    for index, pixels in frames:
        for _ in range(sampling.indices.count(index)):
            write(next(positions), pixels)
    if next(positions, None) is not None:
        raise MissingFrameError


def lost(num_announced: int, num_decodable: int) -> tuple[str, ...]:
    """What to say where frames do not decode."""
    if num_decodable >= num_announced:
        return ()
    return (f"{num_announced - num_decodable} of {num_announced} frames do not decode and were left out.",)
