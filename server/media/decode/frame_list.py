"""A list of images as a video, each resized as it is decoded. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

from model_executor.processor.geometry import Size, video_grid
from model_executor.processor.patches import Pixels
from server.media.decode.image import ImageDecoder
from server.media.decode.video_source import OpenWriter, VideoPlan, frame_size
from server.media.errors import MediaError
from server.media.messages import VideoBudget


class FrameList:
    """Images of one size, sampled at `budget.fps`; the last repeats where their number is odd. A `VideoSource`.

    Args:
        files: the encoded images, in order.
        budget: what they may become.

    Raises:
        MediaError: an image is damaged, too large, or of another size than the first.
    """

    def __init__(self, files: Sequence[BinaryIO], budget: VideoBudget) -> None:
        """Read the headers of all images."""
        self._files = files
        self._max_source_pixels = budget.max_source_pixels
        num_frames = len(files) + len(files) % 2
        source = self._open(0).size
        for index in range(1, len(files)):
            own = self._open(index).size
            if own != source:
                raise MediaError(
                    "invalid_media_frames",
                    f"Frame {index} of the list is {own.width}x{own.height} px, the first {source.width}x"
                    f"{source.height} px; all must have the same size.",
                )
        size = frame_size(source, num_frames, budget)
        self.plan = VideoPlan(
            grid=video_grid(size, num_frames),
            source_size=source,
            size=size,
            frame_times_s=tuple(min(index, len(files) - 1) / budget.fps for index in range(num_frames)),
            effective_fps=budget.fps,
            num_source_frames=len(files),
            notes=(),
        )

    def write(self, open_writer: OpenWriter) -> VideoPlan:
        """See `VideoSource`."""
        plan = self.plan
        write = open_writer(plan.grid)
        notes: dict[str, None] = {}
        for index in range(len(self._files)):
            pixels, image_notes = self._render(index, plan.size)
            notes |= dict.fromkeys(image_notes)
            write(index, pixels)
        if len(plan.frame_times_s) > len(self._files):
            write(len(self._files), pixels)
        return replace(plan, notes=tuple(notes))

    def _render(self, index: int, size: Size) -> tuple[Pixels, tuple[str, ...]]:
        """One image's pixels, and its notes for the client."""
        image = self._open(index)
        try:
            return image.render(size), image.notes
        except MediaError as error:
            raise _frame_error(index, error) from error

    def _open(self, index: int) -> ImageDecoder:
        self._files[index].seek(0)
        try:
            return ImageDecoder(self._files[index], max_source_pixels=self._max_source_pixels)
        except MediaError as error:
            raise _frame_error(index, error) from error


def _frame_error(index: int, error: MediaError) -> MediaError:
    return MediaError(error.code, f"Frame {index} of the list cannot be used. {error.message}")
