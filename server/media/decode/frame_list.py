"""A list of pictures as a clip, each resized as it is decoded. Pure; runs in a media worker."""

from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

from model_executor.processor.geometry import Size, video_grid
from model_executor.processor.patches import Pixels
from server.core.errors import BadRequestError
from server.media.decode.image import ImageDecoder
from server.media.decode.video_source import Clip, OpenWriter, clip_size
from server.media.messages import ClipBudget


class Stills:
    """Pictures of one size, taken at `budget.fps`; the last repeats where their number is odd. A `ClipSource`.

    Args:
        files: the encoded pictures, in order.
        budget: what they may become.

    Raises:
        BadRequestError: a picture is damaged, too large, or of another size than the first.
    """

    def __init__(self, files: Sequence[BinaryIO], budget: ClipBudget) -> None:
        self._files = files
        self._max_source_pixels = budget.max_source_pixels
        num_frames = len(files) + len(files) % 2
        source = self._picture(0).size
        for index in range(1, len(files)):
            own = self._picture(index).size
            if own != source:
                fact = f"It is {own.width}x{own.height} px, the first is {source.width}x{source.height} px."
                raise _frame_error(index, fact)
        size = clip_size(source, num_frames, budget)
        self.announced = Clip(
            grid=video_grid(size, num_frames),
            source_size=source,
            size=size,
            frame_times_s=tuple(min(index, len(files) - 1) / budget.fps for index in range(num_frames)),
            effective_fps=budget.fps,
            num_source_frames=len(files),
            notes=(),
        )

    def write(self, open_writer: OpenWriter) -> Clip:
        """See `ClipSource`."""
        clip = self.announced
        write = open_writer(clip.grid)
        notes: dict[str, None] = {}
        for index in range(len(self._files)):
            shown, told = self._rendered(index, clip.size)
            notes |= dict.fromkeys(told)
            write(index, shown)
        if len(clip.frame_times_s) > len(self._files):
            write(len(self._files), shown)
        return replace(clip, notes=tuple(notes))

    def _rendered(self, index: int, size: Size) -> tuple[Pixels, tuple[str, ...]]:
        """One picture's pixels and what is to be told of it."""
        picture = self._picture(index)
        try:
            return picture.render(size), picture.notes
        except BadRequestError as error:
            raise _frame_error(index, error.message) from error

    def _picture(self, index: int) -> ImageDecoder:
        self._files[index].seek(0)
        try:
            return ImageDecoder(self._files[index], max_source_pixels=self._max_source_pixels)
        except BadRequestError as error:
            raise _frame_error(index, error.message) from error


def _frame_error(index: int, fact: str) -> BadRequestError:
    return BadRequestError(f"Frame {index} of the list cannot be used. {fact}")
