"""A list of pictures as a clip, each resized as it is decoded. Pure; runs in a media worker."""

from collections.abc import Callable, Sequence
from typing import BinaryIO

from model_executor.geometry import Grid, Size, video_grid
from server.errors import BadRequestError
from server.media.images import Picture
from server.media.job import ClipBudget
from server.media.patches import Pixels
from server.media.video import Clip, FrameWriter, clip_size


def sample_frames(files: Sequence[BinaryIO], budget: ClipBudget, open_writer: Callable[[Grid], FrameWriter]) -> Clip:
    """Make a clip of pictures, all of one size, taken at `budget.fps`; the last repeats where their number is odd.

    Raises:
        BadRequestError: a picture is damaged, too large, or of another size than the first.
    """
    num_frames = len(files) + len(files) % 2
    pictures = (_frame(file, index, budget) for index, file in enumerate(files))
    first = next(pictures)
    size = clip_size(first.size, num_frames, budget)
    grid = video_grid(size, num_frames)
    write = open_writer(grid)
    shown = first.render(size)
    write(0, shown)
    notes = dict.fromkeys(first.notes)
    for index, picture in enumerate(pictures, start=1):
        shown = _same_size_pixels(picture, index, first.size, size)
        notes |= dict.fromkeys(picture.notes)
        write(index, shown)
    if num_frames > len(files):
        write(len(files), shown)
    times_s = tuple(min(index, len(files) - 1) / budget.fps for index in range(num_frames))
    return Clip(grid, first.size, size, times_s, budget.fps, tuple(notes))


def _frame(file: BinaryIO, index: int, budget: ClipBudget) -> Picture:
    try:
        return Picture(file, max_source_pixels=budget.max_source_pixels)
    except BadRequestError as error:
        raise _frame_error(index, error.message) from error


def _same_size_pixels(picture: Picture, index: int, first: Size, size: Size) -> Pixels:
    if picture.size != first:
        own = f"{picture.size.width}x{picture.size.height}"
        raise _frame_error(index, f"It is {own} px, the first is {first.width}x{first.height} px.")
    try:
        return picture.render(size)
    except BadRequestError as error:
        raise _frame_error(index, error.message) from error


def _frame_error(index: int, fact: str) -> BadRequestError:
    return BadRequestError(f"Frame {index} of the list cannot be used. {fact}")
