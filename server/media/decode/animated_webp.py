"""An animated WebP as a clip: when its frames are shown, and the frames. FFmpeg cannot decode these; Pillow can.

The times stand in the file's chunk headers, so that frames are chosen before anything is decoded. A frame builds on
the one before it, so all are decoded up to the last one chosen, one at a time.

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
from server.core.errors import BadRequestError
from server.media.decode.color import in_srgb
from server.media.decode.demuxer import MAX_SOURCE_FRAMES
from server.media.decode.frame_sampling import Sampling, sample, timeline
from server.media.decode.image import refuse_bomb, translated
from server.media.decode.resize import resize
from server.media.decode.video_source import Clip, MissingFrameError, OpenWriter, lost, planned, write_frames
from server.media.messages import ClipBudget

TICK_S = Fraction(1, 1000)
"""Times are counted in milliseconds."""

_HASTY_MS = 10
_HASTY_SHOWN_MS = 100
"""Frames shown for 10 ms or less are shown for 100 ms, as browsers do with files that give no sensible time."""


@dataclass(frozen=True, slots=True)
class _Scan:
    """What the headers tell."""

    size: Size
    ticks: tuple[int, ...]
    """When each frame is shown, rising, the first is 0."""
    last_frame_ticks: int
    """How long the last frame is shown."""
    notes: tuple[str, ...]
    """What a person should know."""


def is_webp(file: BinaryIO) -> bool:
    """Whether a file is a WebP, animated or not."""
    file.seek(0)
    head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


class Animation:
    """A WebP as a clip; a `ClipSource`. Of a damaged one, what comes before the damage.

    Args:
        file: the encoded animation.
        budget: what it may become.

    Raises:
        BadRequestError: damaged throughout, or over a limit.
    """

    def __init__(self, file: BinaryIO, budget: ClipBudget) -> None:
        self._file = file
        self._budget = budget
        self._scan = _scan(file, max_source_pixels=budget.max_source_pixels)
        self._sampling = self._sample(len(self._scan.ticks), self._scan.last_frame_ticks)
        self.announced = planned(self._sampling, self._scan.size, budget, self._scan.notes)

    def write(self, open_writer: OpenWriter) -> Clip:
        """See `ClipSource`."""
        scan = self._scan
        try:
            return self._written(self.announced, self._sampling, open_writer)
        except MissingFrameError:
            num_frames = _num_decodable(self._file)
            if num_frames in (0, len(scan.ticks)):
                raise BadRequestError("The clip is truncated or corrupt: no frame of it decodes.") from None
        sampling = self._sample(num_frames, scan.ticks[num_frames] - scan.ticks[num_frames - 1])
        notes = (*scan.notes, *lost(len(scan.ticks), num_frames))
        return self._written(planned(sampling, scan.size, self._budget, notes), sampling, open_writer)

    def _sample(self, num_frames: int, last_frame_ticks: int) -> Sampling:
        ticks = self._scan.ticks[:num_frames]
        return sample(timeline(ticks, TICK_S, rates=(), last_frame_ticks=last_frame_ticks), self._budget)

    def _written(self, clip: Clip, sampling: Sampling, open_writer: OpenWriter) -> Clip:
        chosen = _frames(self._file, set(sampling.indices))
        write_frames(sampling, ((i, resize(image, clip.size)) for i, image in chosen), open_writer(clip.grid))
        return clip


def _scan(file: BinaryIO, *, max_source_pixels: int) -> _Scan:
    """Read the headers of a WebP; a still is one frame.

    Args:
        file: the encoded animation.
        max_source_pixels: limit of a frame's area.

    Raises:
        BadRequestError: damaged, too large, or of too many frames.
    """
    shown_ms = []
    is_cut_off = False
    # The decoder takes memory for a whole frame when it is made, so the announced size is checked before that.
    for chunk in _chunks(file):
        is_cut_off = is_cut_off or not chunk.is_whole
        if chunk.name == b"VP8X":
            refuse_bomb(chunk.number(4) + 1, chunk.number(7) + 1, max_source_pixels)
        if chunk.name == b"ANMF" and chunk.is_whole:
            time_ms = chunk.number(12)
            shown_ms.append(time_ms if time_ms > _HASTY_MS else _HASTY_SHOWN_MS)
        if len(shown_ms) > MAX_SOURCE_FRAMES:
            raise BadRequestError(f"The clip has more than {MAX_SOURCE_FRAMES} frames.")
    with _opened(file) as image:
        width, height = image.size
    refuse_bomb(width, height, max_source_pixels)
    shown_ms = shown_ms or [_HASTY_SHOWN_MS]
    ticks = [0]
    for time_ms in shown_ms[:-1]:
        ticks.append(ticks[-1] + time_ms)
    notes = (f"The file is cut off after {len(ticks)} frames.",) if is_cut_off else ()
    return _Scan(Size(height, width), tuple(ticks), shown_ms[-1], notes)


def _frames(file: BinaryIO, wanted: Collection[int]) -> Iterator[tuple[int, Image.Image]]:
    """The frames with the numbers `wanted`, in order, mode RGB; ends before the first one that does not decode."""
    with _opened(file) as image:
        for index in range(max(wanted) + 1):
            try:
                with translated():
                    image.seek(index)
                    image.load()
            except BadRequestError:
                return
            if index in wanted:
                yield index, in_srgb(image)[0]


def _num_decodable(file: BinaryIO) -> int:
    """How many frames come before the first one that does not decode."""
    count = 0
    with _opened(file) as image:
        try:
            with translated():
                while True:
                    image.seek(count)
                    image.load()
                    count += 1
        except BadRequestError:
            return count


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Image.Image]:
    end = max((chunk.end for chunk in _chunks(file) if chunk.is_whole), default=12)
    file.seek(0)
    # The decoder takes nothing of a file that is cut off, so the size it announces is made true.
    whole = io.BytesIO(b"RIFF" + struct.pack("<I", end - 8) + file.read(end)[8:])
    try:
        with translated():
            image = Image.open(whole, formats=["WEBP"])
    except BadRequestError as error:
        raise BadRequestError("The clip is truncated or corrupt.") from error
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
    place = 12
    while place + 8 <= num_bytes:
        file.seek(place)
        head = file.read(24)
        name, size = struct.unpack("<4sI", head[:8])
        place += 8 + size + size % 2
        yield _Chunk(name, head[8:].ljust(16, b"\0"), place, place <= num_bytes)
