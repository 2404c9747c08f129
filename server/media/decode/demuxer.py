"""Opens video containers (MP4, WebM, ...) with allow-lists of formats and codecs, and reads their timestamps.

Packets have presentation times, so the exact frame count, rate and duration are known before anything is decoded,
wherever the container has its index and whether or not its rate is constant. No other file is ever opened.

Source: FFmpeg 8 (`format_whitelist`, `codec_whitelist`, AV_PKT_FLAG_*); RFC 6386 section 9.1 for VP8's show_frame bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, NoReturn

import av
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from server.media.decode.formats import CONTAINERS, DECODER_NAMES, DEMUXER_NAMES
from server.media.decode.frame_sampling import too_long_error
from server.media.decode.image import check_source_pixels
from server.media.decode.tracks import choose_track, make_decoder
from server.media.errors import MediaError

MAX_SOURCE_FRAMES = 4_000_000
"""Frames of one video (four hours at 240 per second are 3.5 million)."""

CUT_OFF_S = 0.5
"""A video that ends this long before the end its header announces was cut off."""

_READ_BYTES = 1 << 20
_COUNTED_FROM_ZERO = frozenset({"matroska,webm", "asf"})
"""Containers whose duration is the end of the last frame, wherever the first one starts."""
_VP8_SHOW_FRAME = 0x10


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of one pass over the packets."""

    ticks: tuple[int, ...]
    """Presentation times of the frames, rising."""
    tick_s: Fraction
    """Seconds per tick."""
    last_frame_ticks: int
    """How long the last frame is visible; 0 where unknown."""
    rates: tuple[Fraction, ...]
    """Frame rates the container claims."""
    packet_ticks: tuple[int | None, ...]
    """Presentation time of every packet, in the order they are decoded."""
    packet_is_key: tuple[bool, ...]
    is_trusted: bool
    """Whether every packet has a presentation time of its own, so that frames can be identified by it."""
    first_frame: VideoFrame
    """The first frame that decodes: its size, pixel format and display matrix are those of the video."""
    aspect: Fraction
    """Width of a pixel divided by its height."""
    notes: tuple[str, ...]
    """What the client should know: content that the container announces but the file does not contain."""


@contextmanager
def open_container(file: BinaryIO) -> Iterator[tuple[InputContainer, VideoStream, VideoCodecContext]]:
    """Open a video's container, its video stream, and a decoder for it.

    Args:
        file: the encoded video; read from its start.

    Raises:
        MediaError: not a supported video.
    """
    file.seek(0)
    try:
        container = av.open(
            file,
            mode="r",
            options={"format_whitelist": ",".join(DEMUXER_NAMES), "codec_whitelist": ",".join(DECODER_NAMES)},
            metadata_errors="replace",
            buffer_size=_READ_BYTES,
            io_open=_reject_open,
        )
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(
            "invalid_media_format",
            f"The file is damaged or not a video in a supported container ({', '.join(CONTAINERS)}); send it again, or "
            "convert it to MP4.",
        ) from error
    with container:
        track = choose_track(container)
        yield container, track, make_decoder(track)


def scan_packets(file: BinaryIO, *, max_s: float, max_source_pixels: int) -> Scan:
    """Read all packets of a video.

    Args:
        file: the encoded video.
        max_s: limit of the duration the header announces, in seconds.
        max_source_pixels: limit of a frame's area.

    Raises:
        MediaError: not a supported video, too long or too large, or nothing in it decodes.
    """
    with open_container(file) as (container, stream, decoder):
        if (announced_s := _announced_s(container)) is not None and announced_s > max_s:
            raise too_long_error(announced_s, max_s)
        check_source_pixels(stream.codec_context.width, stream.codec_context.height, max_source_pixels)
        # A decoder with a delay of its own would hold the first frame back.
        decoder.thread_type = ThreadType.NONE
        ticks: list[int | None] = []
        keys: list[bool] = []
        visible: list[int] = []
        last = (-(2**63), 0)
        first_frame: VideoFrame | None = None
        is_damaged = False
        for packet in read_packets(container, stream):
            if packet is None:
                is_damaged = True
                continue
            if first_frame is None:
                first_frame = next(iter(decode_packet(decoder, packet)), None)
            ticks.append(packet.pts)
            keys.append(packet.is_keyframe)
            if packet.pts is not None and not packet.is_discard and _is_visible(stream, packet):
                visible.append(packet.pts)
                last = max(last, (packet.pts, packet.duration or 0))
            if len(ticks) > MAX_SOURCE_FRAMES:
                raise MediaError("media_too_long", f"The video has more than {MAX_SOURCE_FRAMES} frames.")
        if first_frame is None:
            first_frame = next(iter(decode_packet(decoder, None)), None)
        if first_frame is None:
            raise undecodable_error()
        distinct = sorted(set(visible))
        return Scan(
            ticks=tuple(distinct),
            tick_s=stream.time_base or Fraction(1, av.time_base),
            last_frame_ticks=last[1],
            rates=tuple(rate for rate in (stream.guessed_rate, stream.average_rate, stream.base_rate) if rate),
            packet_ticks=tuple(ticks),
            packet_is_key=tuple(keys),
            # AVI has no presentation times of its own; FFmpeg's guess is wrong where frames are reordered.
            is_trusted=None not in ticks
            and len(distinct) == len(visible) > 0
            and not (container.format.name == "avi" and stream.codec_context.has_b_frames),
            first_frame=first_frame,
            aspect=stream.sample_aspect_ratio or Fraction(1),
            notes=_cut_off_note(container, stream, last, is_damaged=is_damaged),
        )


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator["Packet[VideoStream] | None"]:
    """Packets with content, in decoding order; None and the end where the container is damaged."""
    while True:
        try:
            for packet in container.demux(stream):
                # An empty packet would signal the end of the video to the decoder; AVI uses them for repeated frames.
                if packet.size and not packet.is_corrupt:
                    yield packet
            return
        except IndexError:
            continue  # a packet of a track that begins later, which PyAV does not know; those after it follow
        except av.FFmpegError:
            yield None
            return


def decode_packet(decoder: VideoCodecContext, packet: "Packet[VideoStream] | None") -> list[VideoFrame]:
    """Frames the decoder returns for `packet` (None: the last ones); nothing where that is damaged."""
    try:
        return decoder.decode(packet)
    except MemoryError:
        raise
    except av.FFmpegError:
        return []


def undecodable_error() -> MediaError:
    """The error of a video of which no frame decodes."""
    return MediaError("media_parse_error", "The video is truncated or corrupt: no frame of it decodes. Send it again.")


def _announced_s(container: InputContainer) -> float | None:
    """How long the container says that it lasts, from its first frame on; None where it does not."""
    if container.duration is None:
        return None
    skipped = (container.start_time or 0) if container.format.name in _COUNTED_FROM_ZERO else 0
    return (container.duration - max(skipped, 0)) / av.time_base


def _cut_off_note(
    container: InputContainer, stream: VideoStream, last: tuple[int, int], *, is_damaged: bool
) -> tuple[str, ...]:
    """A note for the client where the file ends before its container says, as far as that can be known.

    Args:
        container: after its last packet was read.
        stream: the video stream.
        last: time and duration of the last frame, in ticks.
        is_damaged: whether reading ended with an error.
    """
    tick_s = float(stream.time_base or 0)
    end_s = (sum(last) - (stream.start_time or 0)) * tick_s
    announced_s = end_s
    if stream.duration is not None:
        skipped = (stream.start_time or 0) if container.format.name in _COUNTED_FROM_ZERO else 0
        announced_s = (stream.duration - max(skipped, 0)) * tick_s
    elif len(container.streams) == 1:
        announced_s = _announced_s(container) or end_s
    if announced_s > end_s + CUT_OFF_S:
        return (f"The file is cut off: it ends at {end_s:.1f} s of {announced_s:.1f} s.",)
    return ("The container is damaged; what follows the damage was left out.",) if is_damaged else ()


def _is_visible(stream: VideoStream, packet: "Packet[VideoStream]") -> bool:
    """False for VP8's hidden reference frames, which have packets of their own."""
    return stream.codec_context.name not in ("vp8", "libvpx") or bool(memoryview(packet)[0] & _VP8_SHOW_FRAME)


def _reject_open(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    """Called when a container refers to another file."""
    raise MediaError(
        "invalid_media_format",
        "The video refers to another file; send one file that has all of it.",
    )
