"""Decodes a video to the frames the model sees, each resized as it is decoded. Pure.

1. `demuxer.scan_packets` reads the packets' timestamps; `sample_frames` chooses frames, `frame_size` their size.
2. The video is decoded in order, skipping what no sampled frame needs: groups of pictures without one, and frames that
   nothing refers to. A sampled frame is converted, rotated upright, resized and written at once.
3. Where a sampled frame does not decode (a corrupt end, wrong timestamps), the whole video is decoded once to learn
   what is really there, and sampled again from that; the result has a note on what was left out.

Conversion to RGB and bicubic resizing are one step (`server/media/decode/resize.py`); the result is within 1/255 mean
absolute difference of resizing exactly converted frames. Animated WebPs are read by
`server/media/decode/animated_webp.py`, animated AVIFs with transparency by `server/media/decode/animated_avif.py`.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from av.video.frame import VideoFrame

from server.core.format_names import name_format, refusal
from server.core.mime import HEAD_BYTES
from server.media.decode import demuxer
from server.media.decode.animated_avif import AnimatedAvif, has_opacity
from server.media.decode.animated_webp import AnimatedWebP, is_webp
from server.media.decode.frame import display_size, find_transpose, render_frame
from server.media.decode.frame_list import FrameList
from server.media.decode.frame_sampling import Sampling, make_timeline, sample_frames
from server.media.decode.image_files import iso, png
from server.media.decode.video_source import (
    MissingFrameError,
    OpenWriter,
    VideoPlan,
    VideoSource,
    dropped_frames_note,
    plan_frames,
    write_frames,
)
from server.media.decode.wide_color import color_space
from server.media.errors import MediaError
from server.media.messages import VideoBudget

_STILLS = frozenset({"JPEG", "BMP", "TIFF"})
"""Images that are never animated. A GIF may be, and one that is not is a video of one frame."""


def open_video(file: BinaryIO, budget: VideoBudget) -> VideoSource:
    """Read a video's headers.

    Args:
        file: the encoded video.
        budget: what it may become.

    Raises:
        MediaError: not a supported video, nothing of it decodes, or it exceeds a limit.
    """
    head = file.read(HEAD_BYTES)
    if not head:
        raise MediaError("empty_media_file", "The video is empty (0 bytes).")
    if is_webp(file):
        return AnimatedWebP(file, budget)
    name = name_format(head)
    if (said := refusal(head)) is not None:
        raise MediaError("invalid_media_format", said)
    if name in ("AVIF", "HEIC") and not iso.has_track(file):
        return FrameList([file], budget)
    if name == "AVIF" and has_opacity(file):
        return AnimatedAvif(file, budget)
    if name in _STILLS or (name == "PNG" and b"acTL" not in head):
        raise MediaError("invalid_media_format", f"The file is an image ({name}), not a video; send it as an image.")
    if name == "PNG":
        png.check_checksums(file)
    return FFmpegVideo(file, budget)


class FFmpegVideo:
    """A video that FFmpeg decodes; a `VideoSource`.

    Args:
        file: the encoded video.
        budget: what it may become.

    Raises:
        MediaError: as `open_video`.
    """

    def __init__(self, file: BinaryIO, budget: VideoBudget) -> None:
        """Read the packets and choose the frames."""
        self._file = file
        self._budget = budget
        self._scan = scan = demuxer.scan_packets(file, max_s=budget.max_s, max_source_pixels=budget.max_source_pixels)
        space = color_space(scan.first_frame.color_primaries, scan.first_frame.color_trc)
        self._notes = (*scan.notes, *(space.notes if space else ()))
        self._transpose = find_transpose(scan.first_frame)
        self._source_size = display_size(scan.first_frame, scan.aspect, self._transpose)
        ticks = scan.ticks or _ticks_by_rate(len(scan.packet_ticks), scan)
        self._sampling = self._sample(ticks, scan.last_frame_ticks)
        self.plan = plan_frames(self._sampling, self._source_size, budget, self._notes)

    def write(self, open_writer: OpenWriter) -> VideoPlan:
        """See `VideoSource`."""
        if self._scan.is_trusted:
            try:
                frames = _decode_selected(self._file, self._scan, sorted(set(self._sampling.indices)))
                return self._write(self.plan, self._sampling, frames, open_writer)
            except MissingFrameError:
                pass  # not every packet decodes; learn below which do
        ticks = _decodable_ticks(self._file, self._scan)
        sampling = self._sample(ticks)
        notes = (*self._notes, *dropped_frames_note(len(self._scan.ticks), len(ticks)))
        plan = plan_frames(sampling, self._source_size, self._budget, notes)
        selected = set(sampling.indices)
        frames = ((i, frame) for i, frame in enumerate(_decode_all(self._file)) if i in selected)
        try:
            return self._write(plan, sampling, frames, open_writer)
        except MissingFrameError as error:
            message = "The video is corrupt: it does not decode the same way twice."
            raise MediaError("media_parse_error", message) from error

    def _sample(self, ticks: Sequence[int], last_frame_ticks: int = 0) -> Sampling:
        rates = self._scan.rates
        timeline = make_timeline(ticks, self._scan.tick_s, rates=rates, last_frame_ticks=last_frame_ticks)
        return sample_frames(timeline, self._budget)

    def _write(
        self, plan: VideoPlan, sampling: Sampling, frames: Iterator[tuple[int, VideoFrame]], open_writer: OpenWriter
    ) -> VideoPlan:
        limit = self._budget.max_source_pixels
        rendered = ((index, render_frame(frame, self._transpose, plan.size, limit)) for index, frame in frames)
        write_frames(sampling, rendered, open_writer(plan.grid))
        return plan


def _decode_selected(file: BinaryIO, scan: demuxer.Scan, indices: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Decode the frames `indices` (rising), identified by their timestamps, and no more than they need.

    Raises:
        MissingFrameError: one of them does not decode.
    """
    targets = [scan.ticks[index] for index in indices]
    needed = _needed_packets(scan, set(targets))
    position = 0
    previous = None
    for frame in _decode_packets(file, scan, needed, set(targets)):
        if frame.pts is None or frame.pts > targets[position] or (previous is not None and frame.pts <= previous):
            raise MissingFrameError
        previous = frame.pts
        if frame.pts == targets[position]:
            if frame.is_corrupt:
                raise MissingFrameError
            yield indices[position], frame
            position += 1
            if position == len(targets):
                return
    raise MissingFrameError


def _needed_packets(scan: demuxer.Scan, targets: set[int]) -> list[bool]:
    """Which packets belong to a group of pictures that contains a target frame.

    A frame presented before its group's key frame may refer to the group before, which is then needed, too.
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
        if tick in targets:
            needed.add(group)
            if tick < key_ticks[group]:
                needed.add(group - 1)
    return [group in needed for group in groups]


def _decode_packets(
    file: BinaryIO, scan: demuxer.Scan, needed: Sequence[bool], targets: set[int]
) -> Iterator[VideoFrame]:
    """Decode the needed packets; frames that are neither targets nor referred to may be missing."""
    with demuxer.open_container(file) as (container, stream, decoder):
        is_running = False
        for number, packet in enumerate(demuxer.read_packets(container, stream)):
            if packet is None or number >= len(needed):
                break
            if needed[number]:
                decoder.skip_frame = "DEFAULT" if packet.pts in targets else "NONREF"
                yield from demuxer.decode_packet(decoder, packet)
            elif is_running:
                yield from demuxer.decode_packet(decoder, None)
                decoder.flush_buffers()
            is_running = needed[number]
        yield from demuxer.decode_packet(decoder, None)


def _decode_all(file: BinaryIO) -> Iterator[VideoFrame]:
    """Decode every frame that can be decoded, in order of presentation."""
    with demuxer.open_container(file) as (container, stream, decoder):
        for packet in demuxer.read_packets(container, stream):
            if packet is not None:
                yield from demuxer.decode_packet(decoder, packet)
        yield from demuxer.decode_packet(decoder, None)


def _decodable_ticks(file: BinaryIO, scan: demuxer.Scan) -> list[int]:
    """Presentation times of the frames that decode, rising; where they have none, counted by the claimed rate."""
    ticks = [frame.pts for frame in _decode_all(file)]
    if not ticks:
        raise demuxer.undecodable_error()
    rising = [tick for tick in ticks if tick is not None]
    if len(rising) == len(ticks) and all(a < b for a, b in itertools.pairwise(rising)):
        return rising
    return _ticks_by_rate(len(ticks), scan)


def _ticks_by_rate(num_frames: int, scan: demuxer.Scan) -> list[int]:
    """Presentation times by the claimed rate, for frames that have none of their own."""
    if not scan.rates:
        raise MediaError("media_parse_error", "The video has neither timestamps nor a frame rate.")
    step = 1 / (scan.rates[0] * scan.tick_s)
    return [round(number * step) for number in range(num_frames)]
