"""A clip's bytes to the frames the model sees, each resized as it is decoded. Pure; runs in a media worker.

1. `demux.scan` reads the packets' timestamps; `timeline.sample` chooses frames; `clip.clip_size` their size.
2. The clip is decoded in order, leaving out what no chosen frame needs: groups of pictures without one, and frames
   that nothing refers to. A frame that is chosen is converted, turned upright, resized and handed over at once.
3. Where a chosen frame does not come (a corrupt tail, wrong timestamps), the whole clip is decoded once to learn what
   is really there, and sampled again from that; what was left out is told.

Conversion to RGB and bicubic resizing are one step (`server/media/decode/resize.py`); the result is within 1/255 mean
absolute difference of resizing exactly converted frames. Animated WebPs are read by
`server/media/decode/animated_webp.py`.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from av.video.frame import VideoFrame

from server.core.errors import BadRequestError
from server.media.decode import demuxer
from server.media.decode.animated_webp import Animation, is_webp
from server.media.decode.frame import display_size, pixels, turn_upright
from server.media.decode.frame_sampling import Sampling, sample, timeline
from server.media.decode.video_source import (
    Clip,
    ClipSource,
    MissingFrameError,
    OpenWriter,
    lost,
    planned,
    write_frames,
)
from server.media.messages import ClipBudget


def open_clip(file: BinaryIO, budget: ClipBudget) -> ClipSource:
    """Read a clip's headers.

    Args:
        file: the encoded clip.
        budget: what it may become.

    Raises:
        BadRequestError: not a clip, damaged throughout, or over a limit.
    """
    if not file.read(1):
        raise BadRequestError("The clip is empty (0 bytes).")
    return Animation(file, budget) if is_webp(file) else FFmpegVideo(file, budget)


class FFmpegVideo:
    """A clip that FFmpeg decodes; a `ClipSource`.

    Args:
        file: the encoded clip.
        budget: what it may become.

    Raises:
        BadRequestError: as `open_clip`.
    """

    def __init__(self, file: BinaryIO, budget: ClipBudget) -> None:
        self._file = file
        self._budget = budget
        self._scan = scan = demuxer.scan(file, max_s=budget.max_s, max_source_pixels=budget.max_source_pixels)
        self._turn = turn_upright(scan.first_frame)
        self._source_size = display_size(scan.first_frame, scan.aspect, self._turn)
        ticks = scan.ticks or _counted_ticks(len(scan.packet_ticks), scan)
        self._sampling = self._sample(ticks, scan.last_frame_ticks)
        self.announced = planned(self._sampling, self._source_size, budget, scan.notes)

    def write(self, open_writer: OpenWriter) -> Clip:
        """See `ClipSource`."""
        if self._scan.is_trusted:
            try:
                chosen = _chosen(self._file, self._scan, sorted(set(self._sampling.indices)))
                return self._written(self.announced, self._sampling, chosen, open_writer)
            except MissingFrameError:
                pass  # not every packet decodes; found out below
        ticks = _decodable_ticks(self._file, self._scan)
        sampling = self._sample(ticks)
        notes = (*self._scan.notes, *lost(len(self._scan.ticks), len(ticks)))
        clip = planned(sampling, self._source_size, self._budget, notes)
        wanted = set(sampling.indices)
        frames = ((i, frame) for i, frame in enumerate(_all(self._file)) if i in wanted)
        try:
            return self._written(clip, sampling, frames, open_writer)
        except MissingFrameError as error:
            raise BadRequestError("The clip is corrupt: it does not decode the same way twice.") from error

    def _sample(self, ticks: Sequence[int], last_frame_ticks: int = 0) -> Sampling:
        rates = self._scan.rates
        return sample(timeline(ticks, self._scan.tick_s, rates=rates, last_frame_ticks=last_frame_ticks), self._budget)

    def _written(
        self, clip: Clip, sampling: Sampling, frames: Iterator[tuple[int, VideoFrame]], open_writer: OpenWriter
    ) -> Clip:
        limit = self._budget.max_source_pixels
        shown = ((index, pixels(frame, self._turn, clip.size, limit)) for index, frame in frames)
        write_frames(sampling, shown, open_writer(clip.grid))
        return clip


def _chosen(file: BinaryIO, scan: demuxer.Scan, indices: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    """The frames `indices` (rising), found by their timestamps, without decoding more than they need.

    Raises:
        MissingFrameError: one of them does not come.
    """
    wanted = [scan.ticks[index] for index in indices]
    needed = _needed_packets(scan, set(wanted))
    position = 0
    previous = None
    for frame in _decoded_packets(file, scan, needed, set(wanted)):
        if frame.pts is None or frame.pts > wanted[position] or (previous is not None and frame.pts <= previous):
            raise MissingFrameError
        previous = frame.pts
        if frame.pts == wanted[position]:
            if frame.is_corrupt:
                raise MissingFrameError
            yield indices[position], frame
            position += 1
            if position == len(wanted):
                return
    raise MissingFrameError


def _needed_packets(scan: demuxer.Scan, wanted: set[int]) -> list[bool]:
    """Which packets belong to a group of pictures that holds a wanted frame.

    A frame shown before its group's key frame may refer to the group before, which is then needed, too.
    """
    groups: list[int] = []
    key_ticks: list[int] = []
    needed: set[int] = set()
    for tick, is_key in zip(scan.packet_ticks, scan.packet_is_key, strict=True):
        assert tick is not None  # as scan.is_trusted
        if is_key or not key_ticks:
            key_ticks.append(tick)
        group = len(key_ticks) - 1
        groups.append(group)
        if tick in wanted:
            needed.add(group)
            if tick < key_ticks[group]:
                needed.add(group - 1)
    return [group in needed for group in groups]


def _decoded_packets(
    file: BinaryIO, scan: demuxer.Scan, needed: Sequence[bool], wanted: set[int]
) -> Iterator[VideoFrame]:
    """Frames of the needed packets; of those, ones that are neither wanted nor referred to may be left out."""
    with demuxer.opened(file) as (container, stream):
        context = stream.codec_context
        is_running = False
        for number, packet in enumerate(demuxer.tolerant_packets(container, stream)):
            if packet is None or number >= len(needed):
                break
            if needed[number]:
                context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                yield from demuxer.decoded(stream, packet)
            elif is_running:
                yield from demuxer.decoded(stream, None)
                context.flush_buffers()
            is_running = needed[number]
        yield from demuxer.decoded(stream, None)


def _all(file: BinaryIO) -> Iterator[VideoFrame]:
    """Every frame that decodes, in order of presentation."""
    with demuxer.opened(file) as (container, stream):
        for packet in demuxer.tolerant_packets(container, stream):
            if packet is not None:
                yield from demuxer.decoded(stream, packet)
        yield from demuxer.decoded(stream, None)


def _decodable_ticks(file: BinaryIO, scan: demuxer.Scan) -> list[int]:
    """Presentation times of the frames that decode, rising; where they have none, counted by the claimed rate."""
    ticks = [frame.pts for frame in _all(file)]
    if not ticks:
        raise BadRequestError("The clip is truncated or corrupt: no frame of it decodes.")
    rising = [tick for tick in ticks if tick is not None]
    if len(rising) == len(ticks) and all(a < b for a, b in itertools.pairwise(rising)):
        return rising
    return _counted_ticks(len(ticks), scan)


def _counted_ticks(num_frames: int, scan: demuxer.Scan) -> list[int]:
    """Presentation times by the claimed rate, for frames that have none of their own."""
    if not scan.rates:
        raise BadRequestError("The clip has neither timestamps nor a frame rate.")
    step = 1 / (scan.rates[0] * scan.tick_s)
    return [round(number * step) for number in range(num_frames)]
