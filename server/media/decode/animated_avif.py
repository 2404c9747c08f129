"""Decodes an animated AVIF with transparency as a video: Pillow's frames, at the times FFmpeg reads. Pure.

Opacity is a track of its own there, which FFmpeg gives as a second video; libavif, in Pillow, joins both. One without
transparency is a video like any other.

Source: AV1 Image File Format 1.2, sections 3 and 4 (image sequences, auxiliary tracks); Pillow 13 `AvifImagePlugin`.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from PIL import Image

from model_executor.processor.geometry import Size
from server.media.decode import demuxer
from server.media.decode.color import to_srgb
from server.media.decode.frame_sampling import Sampling, make_timeline, sample_frames
from server.media.decode.image import check_source_pixels, pillow_errors
from server.media.decode.resize import resize
from server.media.decode.video_source import (
    MissingFrameError,
    OpenWriter,
    VideoPlan,
    dropped_frames_note,
    plan_frames,
    write_frames,
)
from server.media.errors import MediaError
from server.media.messages import VideoBudget


def has_opacity(file: BinaryIO) -> bool:
    """Whether an AVIF has transparency; False where it is too damaged to tell."""
    file.seek(0)
    try:
        with pillow_errors():
            return Image.open(file, formats=["AVIF"]).mode == "RGBA"
    except MediaError:
        return False


class AnimatedAvif:
    """An animated AVIF with transparency; a `VideoSource`. Of a damaged one, what comes before the damage.

    Args:
        file: the encoded animation.
        budget: what it may become.

    Raises:
        MediaError: nothing of it decodes, or it exceeds a limit.
    """

    def __init__(self, file: BinaryIO, budget: VideoBudget) -> None:
        """Read the packets and choose the frames."""
        self._file = file
        self._budget = budget
        self._scan = scan = demuxer.scan_packets(file, max_s=budget.max_s, max_source_pixels=budget.max_source_pixels)
        self._size = Size(scan.first_frame.height, scan.first_frame.width)
        self._sampling = self._sample(scan.ticks)
        self.plan = plan_frames(self._sampling, self._size, budget, scan.notes)

    def write(self, open_writer: OpenWriter) -> VideoPlan:
        """See `VideoSource`."""
        ticks = self._scan.ticks
        try:
            return self._write(self.plan, self._sampling, open_writer)
        except MissingFrameError:
            num_frames = sum(1 for _ in _decode_frames(self._file, range(len(ticks)), self._budget.max_source_pixels))
            if num_frames in (0, len(ticks)):
                raise demuxer.undecodable_error() from None
        sampling = self._sample(ticks[:num_frames])
        notes = (*self._scan.notes, *dropped_frames_note(len(ticks), num_frames))
        return self._write(plan_frames(sampling, self._size, self._budget, notes), sampling, open_writer)

    def _sample(self, ticks: Sequence[int]) -> Sampling:
        scan = self._scan
        timeline = make_timeline(ticks, scan.tick_s, rates=scan.rates, last_frame_ticks=scan.last_frame_ticks)
        return sample_frames(timeline, self._budget)

    def _write(self, plan: VideoPlan, sampling: Sampling, open_writer: OpenWriter) -> VideoPlan:
        frames = _decode_frames(self._file, sorted(set(sampling.indices)), self._budget.max_source_pixels)
        write_frames(sampling, ((n, resize(image, plan.size)) for n, image in frames), open_writer(plan.grid))
        return plan


def _decode_frames(file: BinaryIO, indices: Sequence[int], max_source_pixels: int) -> Iterator[tuple[int, Image.Image]]:
    """Decode the frames `indices`, rising, mode RGB on white; ends before the first one that does not decode."""
    file.seek(0)
    with pillow_errors():
        image = Image.open(file, formats=["AVIF"])
    check_source_pixels(*image.size, max_source_pixels)
    for index in indices:
        try:
            with pillow_errors():
                image.seek(index)
                image.load()
                frame = to_srgb(image)[0]
        except MediaError:
            return
        yield index, frame
