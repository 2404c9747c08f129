"""A clip's bytes to the frames the model sees, each resized as it is decoded. Pure; runs in a media worker.

1. `demux.scan` reads the packets' timestamps; `timeline.sample` chooses frames; `geometry.video_size` their size.
2. The clip is decoded in order, leaving out what no chosen frame needs: groups of pictures without one, and frames
   that nothing refers to. A frame that is chosen is converted, turned upright, resized and handed over at once.
3. Where a chosen frame does not come (a corrupt tail, wrong timestamps), the whole clip is decoded once to learn what
   is really there, and sampled again from that; what was left out is told.

Conversion to RGB and bicubic resizing are one step (`server/media/scaling.py`); the result is within 1/255 mean
absolute difference of resizing exactly converted frames. Animated WebPs are read by `server/media/animation.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from av.video.frame import VideoFrame

from model_executor.geometry import GeometryError, Grid, Size, video_grid, video_size
from server.errors import BadRequestError
from server.media import animation, demux
from server.media.display import display_size, pixels, turn_upright
from server.media.job import ClipBudget
from server.media.patches import Pixels
from server.media.scaling import resize
from server.media.timeline import Sampling, sample, timeline

FrameWriter = Callable[[int, Pixels], None]
"""Takes each frame's number and its pixels, uint8 [height, width, 3]; numbers rise."""


@dataclass(frozen=True, slots=True)
class Clip:
    """What a clip became."""

    grid: Grid
    source_size: Size
    """Upright, with square pixels, before resizing."""
    size: Size
    frame_times_s: tuple[float, ...]
    effective_fps: float | None
    notes: tuple[str, ...]


class _MissingFrameError(Exception):
    """A chosen frame did not come out of the decoder."""


def sample_clip(file: BinaryIO, budget: ClipBudget, open_writer: Callable[[Grid], FrameWriter]) -> Clip:
    """Sample a clip.

    Args:
        file: the encoded clip.
        budget: what it may become.
        open_writer: called with the grid before the first frame, and once more should the clip turn out damaged.

    Raises:
        BadRequestError: not a clip, damaged throughout, or over a limit.
    """
    if not file.read(1):
        raise BadRequestError("The clip is empty (0 bytes).")
    if animation.is_webp(file):
        return _sample_animation(file, budget, open_writer)
    scan = demux.scan(file, max_s=budget.max_s, max_source_pixels=budget.max_source_pixels)
    turn = turn_upright(scan.first_frame)
    source_size = display_size(scan.first_frame, scan.aspect, turn)
    notes = scan.notes

    def resample(sampling: Sampling, frames: Iterator[tuple[int, VideoFrame]]) -> Clip:
        def draw(size: Size) -> Iterator[tuple[int, Pixels]]:
            return ((index, pixels(frame, turn, size, budget.max_source_pixels)) for index, frame in frames)

        return _written(sampling, source_size, draw, budget, open_writer, notes)

    if scan.is_trusted:
        line = timeline(scan.ticks, scan.tick_s, rates=scan.rates, last_frame_ticks=scan.last_frame_ticks)
        sampling = sample(line, budget)
        try:
            return resample(sampling, _chosen(file, scan, sorted(set(sampling.indices))))
        except _MissingFrameError:
            pass  # not every packet decodes; found out below
    ticks = _decodable_ticks(file, scan)
    notes = (*notes, *_lost(len(scan.ticks), len(ticks)))
    sampling = sample(timeline(ticks, scan.tick_s, rates=scan.rates), budget)
    wanted = set(sampling.indices)
    try:
        return resample(sampling, ((i, frame) for i, frame in enumerate(_all(file)) if i in wanted))
    except _MissingFrameError as error:
        raise BadRequestError("The clip is corrupt: it does not decode the same way twice.") from error


def _sample_animation(file: BinaryIO, budget: ClipBudget, open_writer: Callable[[Grid], FrameWriter]) -> Clip:
    """Sample an animated WebP; of a damaged one, what comes before the damage."""
    scan = animation.scan(file, max_source_pixels=budget.max_source_pixels)

    def resample(num_frames: int, last_frame_ticks: int) -> Clip:
        ticks = scan.ticks[:num_frames]
        sampling = sample(timeline(ticks, animation.TICK_S, rates=(), last_frame_ticks=last_frame_ticks), budget)

        def draw(size: Size) -> Iterator[tuple[int, Pixels]]:
            return ((index, resize(image, size)) for index, image in animation.frames(file, set(sampling.indices)))

        notes = (*scan.notes, *_lost(len(scan.ticks), num_frames))
        return _written(sampling, scan.size, draw, budget, open_writer, notes)

    try:
        return resample(len(scan.ticks), scan.last_frame_ticks)
    except _MissingFrameError:
        num_frames = animation.num_decodable(file)
        if num_frames in (0, len(scan.ticks)):
            raise BadRequestError("The clip is truncated or corrupt: no frame of it decodes.") from None
        return resample(num_frames, scan.ticks[num_frames] - scan.ticks[num_frames - 1])


def _written(
    sampling: Sampling,
    source_size: Size,
    draw: Callable[[Size], Iterator[tuple[int, Pixels]]],
    budget: ClipBudget,
    open_writer: Callable[[Grid], FrameWriter],
    notes: tuple[str, ...],
) -> Clip:
    """Hand a clip's chosen frames over.

    Args:
        sampling: which frames.
        source_size: the clip's.
        draw: gives each chosen frame's number and its pixels at a size, once, in order.
        budget: what the clip may become.
        open_writer: as in `sample_clip`.
        notes: what a person should know, besides what the sampling says.

    Raises:
        _MissingFrameError: `draw` gave too few.
    """
    size = clip_size(source_size, len(sampling.indices), budget)
    grid = video_grid(size, len(sampling.indices))
    write = open_writer(grid)
    positions = iter(range(len(sampling.indices)))
    for index, shown in draw(size):
        for _ in range(sampling.indices.count(index)):
            write(next(positions), shown)
    if next(positions, None) is not None:
        raise _MissingFrameError
    return Clip(grid, source_size, size, sampling.times_s, sampling.effective_fps, (*notes, *sampling.notes))


def _lost(num_announced: int, num_decodable: int) -> tuple[str, ...]:
    """What to say where frames do not decode."""
    if num_decodable >= num_announced:
        return ()
    return (f"{num_announced - num_decodable} of {num_announced} frames do not decode and were left out.",)


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


def _chosen(file: BinaryIO, scan: demux.Scan, indices: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    """The frames `indices` (rising), found by their timestamps, without decoding more than they need.

    Raises:
        _MissingFrameError: one of them does not come.
    """
    wanted = [scan.ticks[index] for index in indices]
    needed = _needed_packets(scan, set(wanted))
    position = 0
    previous = None
    for frame in _decoded_packets(file, scan, needed, set(wanted)):
        if frame.pts is None or frame.pts > wanted[position] or (previous is not None and frame.pts <= previous):
            raise _MissingFrameError
        previous = frame.pts
        if frame.pts == wanted[position]:
            if frame.is_corrupt:
                raise _MissingFrameError
            yield indices[position], frame
            position += 1
            if position == len(wanted):
                return
    raise _MissingFrameError


def _needed_packets(scan: demux.Scan, wanted: set[int]) -> list[bool]:
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
    file: BinaryIO, scan: demux.Scan, needed: Sequence[bool], wanted: set[int]
) -> Iterator[VideoFrame]:
    """Frames of the needed packets; of those, ones that are neither wanted nor referred to may be left out."""
    with demux.opened(file) as (container, stream):
        context = stream.codec_context
        is_running = False
        for number, packet in enumerate(demux.tolerant_packets(container, stream)):
            if packet is None or number >= len(needed):
                break
            if needed[number]:
                context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                yield from demux.decoded(stream, packet)
            elif is_running:
                yield from demux.decoded(stream, None)
                context.flush_buffers()
            is_running = needed[number]
        yield from demux.decoded(stream, None)


def _all(file: BinaryIO) -> Iterator[VideoFrame]:
    """Every frame that decodes, in order of presentation."""
    with demux.opened(file) as (container, stream):
        for packet in demux.tolerant_packets(container, stream):
            if packet is not None:
                yield from demux.decoded(stream, packet)
        yield from demux.decoded(stream, None)


def _decodable_ticks(file: BinaryIO, scan: demux.Scan) -> list[int]:
    """Presentation times of the frames that decode, rising; where they have none, counted by the claimed rate."""
    ticks = [frame.pts for frame in _all(file)]
    if not ticks:
        raise BadRequestError("The clip is truncated or corrupt: no frame of it decodes.")
    rising = [tick for tick in ticks if tick is not None]
    if len(rising) == len(ticks) and all(a < b for a, b in zip(rising, rising[1:], strict=False)):
        return rising
    if not scan.rates:
        raise BadRequestError("The clip has neither timestamps nor a frame rate.")
    step = 1 / (scan.rates[0] * scan.tick_s)
    return [round(number * step) for number in range(len(ticks))]
