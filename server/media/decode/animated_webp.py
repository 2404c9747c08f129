"""Decodes an animated WebP as a video, with Pillow: FFmpeg cannot decode these. Pure.

The times are in the file's chunk headers, so that frames are chosen before anything is decoded. A frame depends on the
one before it, so all are decoded up to the last one chosen, one at a time.

Source: the WebP container specification (chunks VP8X and ANMF), RFC 9649 section 2.7.
"""

import io
import os
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from PIL import Image

from model_executor.processor.geometry import Size
from server.media.decode.color import to_srgb
from server.media.decode.demuxer import MAX_SOURCE_FRAMES, undecodable_error
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

TICK_S = Fraction(1, 1000)
"""Times are counted in milliseconds."""

_TOO_SHORT_MS = 10
_DEFAULT_MS = 100
"""Frames of 10 ms or less get 100 ms, as in browsers, where a file has no sensible time."""


@dataclass(frozen=True, slots=True)
class _Scan:
    """The result of reading the headers."""

    size: Size
    ticks: tuple[int, ...]
    """Presentation time of each frame, rising, the first is 0."""
    last_frame_ticks: int
    """Duration of the last frame."""
    notes: tuple[str, ...]
    """What the client should know."""


def is_webp(file: BinaryIO) -> bool:
    """Whether a file is a WebP, animated or not."""
    file.seek(0)
    head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


class AnimatedWebP:
    """A WebP as a video; a `VideoSource`. Of a damaged one, what comes before the damage.

    Args:
        file: the encoded animation.
        budget: what it may become.

    Raises:
        MediaError: nothing of it decodes, or it exceeds a limit.
    """

    def __init__(self, file: BinaryIO, budget: VideoBudget) -> None:
        """Read the headers and choose the frames."""
        self._file = file
        self._budget = budget
        self._scan = _scan(file, max_source_pixels=budget.max_source_pixels)
        self._sampling = self._sample(len(self._scan.ticks), self._scan.last_frame_ticks)
        self.plan = plan_frames(self._sampling, self._scan.size, budget, self._scan.notes)

    def write(self, open_writer: OpenWriter) -> VideoPlan:
        """See `VideoSource`."""
        scan = self._scan
        try:
            return self._write(self.plan, self._sampling, open_writer)
        except MissingFrameError:
            num_frames = _num_decodable(self._file)
            if num_frames in (0, len(scan.ticks)):
                raise undecodable_error() from None
        sampling = self._sample(num_frames, scan.ticks[num_frames] - scan.ticks[num_frames - 1])
        notes = (*scan.notes, *dropped_frames_note(len(scan.ticks), num_frames))
        return self._write(plan_frames(sampling, scan.size, self._budget, notes), sampling, open_writer)

    def _sample(self, num_frames: int, last_frame_ticks: int) -> Sampling:
        ticks = self._scan.ticks[:num_frames]
        timeline = make_timeline(ticks, TICK_S, rates=(), last_frame_ticks=last_frame_ticks)
        return sample_frames(timeline, self._budget)

    def _write(self, plan: VideoPlan, sampling: Sampling, open_writer: OpenWriter) -> VideoPlan:
        frames = _decode_frames(self._file, set(sampling.indices))
        rendered = ((index, resize(image, plan.size)) for index, image in frames)
        write_frames(sampling, rendered, open_writer(plan.grid))
        return plan


def _scan(file: BinaryIO, *, max_source_pixels: int) -> _Scan:
    """Read the headers of a WebP; a still is one frame.

    Args:
        file: the encoded animation.
        max_source_pixels: limit of a frame's area.

    Raises:
        MediaError: damaged, too large, or of too many frames.
    """
    durations_ms = []
    is_cut_off = False
    # The decoder allocates a whole frame when it is created, so the size in the header is checked before that.
    for chunk in _chunks(file):
        is_cut_off = is_cut_off or not chunk.is_whole
        if chunk.name == b"VP8X":
            check_source_pixels(chunk.number(4) + 1, chunk.number(7) + 1, max_source_pixels)
        if chunk.name == b"ANMF" and chunk.is_whole:
            duration_ms = chunk.number(12)
            durations_ms.append(duration_ms if duration_ms > _TOO_SHORT_MS else _DEFAULT_MS)
        if len(durations_ms) > MAX_SOURCE_FRAMES:
            raise MediaError("media_too_long", f"The video has more than {MAX_SOURCE_FRAMES} frames.")
    with _open_image(file) as image:
        width, height = image.size
    check_source_pixels(width, height, max_source_pixels)
    durations_ms = durations_ms or [_DEFAULT_MS]
    ticks = [0]
    for duration_ms in durations_ms[:-1]:
        ticks.append(ticks[-1] + duration_ms)
    notes = (f"The file is cut off after {len(ticks)} frames.",) if is_cut_off else ()
    return _Scan(Size(height, width), tuple(ticks), durations_ms[-1], notes)


def _decode_frames(file: BinaryIO, indices: Collection[int]) -> Iterator[tuple[int, Image.Image]]:
    """Decode the frames `indices`, in order, mode RGB; ends before the first one that does not decode."""
    with _open_image(file) as image:
        for index in range(max(indices) + 1):
            try:
                with pillow_errors():
                    image.seek(index)
                    image.load()
            except MediaError:
                return
            if index in indices:
                yield index, to_srgb(image)[0]


def _num_decodable(file: BinaryIO) -> int:
    """How many frames come before the first one that does not decode."""
    count = 0
    with _open_image(file) as image:
        try:
            with pillow_errors():
                while True:
                    image.seek(count)
                    image.load()
                    count += 1
        except MediaError:
            return count


@contextmanager
def _open_image(file: BinaryIO) -> Iterator[Image.Image]:
    end = max((chunk.end for chunk in _chunks(file) if chunk.is_whole), default=12)
    file.seek(0)
    # The decoder rejects a file that is cut off, so the size in its header is corrected.
    whole = io.BytesIO(b"RIFF" + struct.pack("<I", end - 8) + file.read(end)[8:])
    try:
        with pillow_errors():
            image = Image.open(whole, formats=["WEBP"])
    except MediaError as error:
        raise MediaError(error.code, "The video is truncated or corrupt.") from error
    yield image


@dataclass(frozen=True, slots=True)
class _Chunk:
    name: bytes
    head: bytes
    """Its first 16 bytes."""
    end: int
    """Where the next one starts."""
    is_whole: bool

    def number(self, start: int) -> int:
        """The 24-bit number at `start`."""
        return int.from_bytes(self.head[start : start + 3], "little")


def _chunks(file: BinaryIO) -> Iterator[_Chunk]:
    num_bytes = file.seek(0, os.SEEK_END)
    position = 12
    while position + 8 <= num_bytes:
        file.seek(position)
        head = file.read(24)
        name, size = struct.unpack("<4sI", head[:8])
        position += 8 + size + size % 2
        yield _Chunk(name, head[8:].ljust(16, b"\0"), position, position <= num_bytes)
