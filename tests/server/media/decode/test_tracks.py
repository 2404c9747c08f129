"""Which track of a container is shown, with its transparency, its real length, and which codecs are decoded."""

import io
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import av
import msgspec
import numpy as np
import pytest
from av.stream import Disposition
from av.video.stream import VideoStream
from PIL import Image

from server.media.decode.formats import DECODER_NAMES
from server.media.errors import MediaError
from tests.support.videos import TINY, Pixels, encode, number_of, numbered, sampled


def see_through(count: int) -> Iterator[Pixels]:
    """RGBA: black ink on nothing at the left, gray of full opacity at the right."""
    for _ in range(count):
        pixels = np.zeros((48, 64, 4), np.uint8)
        pixels[12:36, 8:24] = (0, 0, 0, 255)
        pixels[:, 32:] = (120, 120, 120, 255)
        yield pixels


def check_on_white(frames: Iterable[Pixels]) -> None:
    """Check that `see_through` lies on white."""
    for frame in frames:
        height, width = frame.shape[:2]
        assert frame[2 : height // 8, 2 : width // 2 - 4].min() > 245, "nothing there"
        assert frame[height // 3 : height // 2, width // 5 : width // 4].max() < 15, "ink"
        assert abs(int(frame[height // 2, width * 3 // 4].mean()) - 120) < 6


def encode_alpha(container: str, codec: str, pixel_format: str, **options: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=10, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        stream.codec_context.thread_count = 1
        for number, pixels in enumerate(see_through(10)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pixel_format)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


ALPHA = [
    ("webm", "libvpx", "yuva420p", {"auto-alt-ref": "0", "crf": "4", "b": "2M"}),
    ("webm", "libvpx-vp9", "yuva420p", {"crf": "4", "b": "0"}),
    ("matroska", "libvpx", "yuva420p", {"auto-alt-ref": "0", "crf": "4", "b": "2M"}),
    ("matroska", "libvpx-vp9", "yuva420p", {"crf": "4", "b": "0"}),
    ("mov", "prores_ks", "yuva444p10le", {"profile": "4444"}),
    ("mov", "qtrle", "argb", {}),
    ("mov", "png", "rgba", {}),
    ("mov", "cfhd", "gbrap12le", {}),
    ("matroska", "ffv1", "yuva420p", {}),
    ("avi", "ffvhuff", "yuva420p", {}),
    ("avi", "utvideo", "gbrap", {}),
    ("avi", "magicyuv", "gbrap", {}),
    ("apng", "apng", "rgba", {}),
]


@pytest.mark.parametrize(("container", "codec", "pixel_format", "options"), ALPHA)
def test_what_is_transparent_lies_on_white(
    container: str, codec: str, pixel_format: str, options: dict[str, str]
) -> None:
    _, frames = sampled(encode_alpha(container, codec, pixel_format, **options))
    check_on_white(frames)


def animated_avif(frames: Iterable[Pixels], shown_ms: int) -> bytes:
    first, *others = (Image.fromarray(pixels) for pixels in frames)
    file = io.BytesIO()
    first.save(file, "AVIF", save_all=True, append_images=others, duration=shown_ms, quality=95, subsampling="4:4:4")
    return file.getvalue()


def test_an_animated_avif_is_a_video() -> None:
    video, frames = sampled(animated_avif(numbered(20), 100))
    assert [number_of(frame) for frame in frames] == [0, 6, 13, 19]
    assert video.frame_times_s == pytest.approx([0, 0.6, 1.3, 1.9])


def test_a_transparent_animated_avif_lies_on_white() -> None:
    data = animated_avif(see_through(10), 100)
    video, frames = sampled(data)
    assert video.frame_times_s == pytest.approx([0, 0.3, 0.6, 0.9])
    check_on_white(frames)
    assert sampled(data[: len(data) * 19 // 20])[0].grid.t <= 2, "a damaged one"
    with pytest.raises(MediaError, match=r"lasts 1\.0 s; the limit is 0\.5 s"):
        sampled(data, msgspec.structs.replace(TINY, max_s=0.5))


def late(container: str, start_s: int, codec: str = "libx264") -> bytes:
    """Two seconds that begin late."""
    file = io.BytesIO()
    written = encode(numbered(50), "mp4", codec, options={"bf": "0"} if codec == "libx264" else {"b": "4M"})
    source = av.open(io.BytesIO(written), mode="r")
    with source, av.open(file, "w", format=container, options={"avoid_negative_ts": "disabled"}) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                shift = round(start_s / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = stream
                output.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("matroska", "libx264"),
        ("webm", "libvpx-vp9"),
        ("asf", "mpeg4"),
        ("mpegts", "libx264"),
        ("flv", "libx264"),
        ("mp4", "libx264"),
    ],
)
@pytest.mark.parametrize("start_s", [3, 20_000])
def test_a_late_start_is_not_part_of_the_length(container: str, codec: str, start_s: int) -> None:
    video, frames = sampled(late(container, start_s, codec), msgspec.structs.replace(TINY, max_s=10))
    assert [number_of(frame) for frame in frames] == [0, 16, 33, 49]
    assert video.frame_times_s == pytest.approx([0, 16 / 25, 33 / 25, 49 / 25], abs=2e-3)
    assert video.notes == ()


@pytest.mark.parametrize("container", ["matroska", "asf"])
def test_the_length_that_is_announced_is_still_limited(container: str) -> None:
    with pytest.raises(MediaError, match=r"lasts [23].\d s; the limit is 1 s"):
        sampled(late(container, 100, "mpeg4"), msgspec.structs.replace(TINY, max_s=1))


Track = tuple[str, int, int, int, Disposition]
"""Codec, brightness, number of frames, width, disposition."""
NONE = Disposition(0)


def tracks(container: str, *tracks: Track) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        streams = []
        for codec, _, _, width, disposition in tracks:
            stream = output.add_stream(codec, rate=10)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height = width, width
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p" if codec != "png" else "rgb24"
            stream.disposition = disposition
            streams.append(stream)
        for stream, (_, level, count, width, _) in zip(streams, tracks, strict=True):
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(np.full((width, width, 3), level, np.uint8), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 10)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    return file.getvalue()


DEFAULT = Disposition.default
LEVEL = 200
TRACKS: dict[str, tuple[str, Sequence[Track]]] = {
    "the second is the default": ("matroska", [("mpeg4", 20, 10, 64, NONE), ("mpeg4", LEVEL, 10, 64, DEFAULT)]),
    "the default is smaller": ("matroska", [("mpeg4", 20, 10, 128, NONE), ("mpeg4", LEVEL, 10, 64, DEFAULT)]),
    "all are default, the larger": ("matroska", [("mpeg4", 20, 10, 64, DEFAULT), ("mpeg4", LEVEL, 10, 128, DEFAULT)]),
    "none is default, the larger": ("matroska", [("mpeg4", 20, 10, 64, NONE), ("mpeg4", LEVEL, 10, 128, NONE)]),
    "a cover before it": ("mp4", [("mjpeg", 20, 1, 512, Disposition.attached_pic), ("mpeg4", LEVEL, 10, 64, DEFAULT)]),
    "a preview of one frame": ("mov", [("mjpeg", 20, 1, 512, DEFAULT), ("mpeg4", LEVEL, 10, 64, DEFAULT)]),
    "an unmarked cover": ("matroska", [("mjpeg", 20, 1, 512, DEFAULT), ("mpeg4", LEVEL, 10, 64, NONE)]),
    "a small preview track": ("mov", [("mpeg4", 20, 10, 32, DEFAULT), ("mpeg4", LEVEL, 10, 256, DEFAULT)]),
    "an unknown codec first": ("matroska", [("snow", 20, 10, 64, DEFAULT), ("mpeg4", LEVEL, 10, 64, NONE)]),
    "still images only": ("mov", [("mjpeg", LEVEL, 10, 64, DEFAULT)]),
}


@pytest.mark.parametrize("name", TRACKS)
def test_the_track_a_player_shows_is_taken(name: str) -> None:
    container, given = TRACKS[name]
    _, frames = sampled(tracks(container, *given))
    assert abs(float(frames[0].mean()) - LEVEL) < 8


def test_a_song_with_a_cover_is_no_video() -> None:
    cover = ("mjpeg", 20, 1, 64, Disposition.attached_pic)
    with pytest.raises(MediaError, match="a cover image, but no video"):
        sampled(tracks("mp4", cover))


MORE_CODECS = [
    ("mov", "qtrle", "rgb24"),
    ("mov", "cfhd", "yuv422p10le"),
    ("mov", "jpeg2000", "rgb24"),
    ("mxf", "jpeg2000", "yuv422p"),
    ("mxf", "mpeg2video", "yuv422p"),
    ("avi", "utvideo", "gbrp"),
    ("avi", "cinepak", "rgb24"),
    ("avi", "ffvhuff", "yuv420p"),
    ("avi", "magicyuv", "gbrp"),
    ("avi", "zmbv", "bgr0"),
    ("avi", "h263p", "yuv420p"),
    ("mov", "v210", "yuv422p10le"),
    ("mov", "svq1", "yuv410p"),
    ("avi", "msvideo1", "rgb555le"),
    ("mov", "dnxhd", "yuv422p10le"),
    ("flv", "flashsv", "bgr24"),
    ("flv", "flv", "yuv420p"),
    ("asf", "wmv2", "yuv420p"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("container", "codec", "pixel_format"), MORE_CODECS)
def test_more_codecs_give_the_right_frames(container: str, codec: str, pixel_format: str) -> None:
    options = {"profile": "dnxhr_hqx"} if codec == "dnxhd" else {"b": "8M"}
    frames_in = numbered(16, height=288, width=352)
    video, frames = sampled(encode(frames_in, container, codec, pixel_format=pixel_format, options=options))
    assert [number_of(frame) for frame in frames] == [0, 5, 10, 15]
    assert video.notes == ()


@pytest.mark.parametrize("container", ["dv", "avi", "mov"])
def test_dv_gives_the_right_frames(container: str) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="rawvideo" if container == "dv" else container) as output:
        stream = output.add_stream("dvvideo", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 720, 576, "yuv420p"
        for number, pixels in enumerate(numbered(8, height=576, width=720)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert [number_of(frame) for frame in sampled(file.getvalue())[1]] == [0, 2, 5, 7]


def test_every_decoder_of_the_table_is_there() -> None:
    assert {name for name in DECODER_NAMES if not name.startswith("lib")} <= av.codec.codecs_available


def test_a_codec_that_is_not_decoded_is_named() -> None:
    with pytest.raises(MediaError, match=r"Unsupported video codec: snow; convert"):
        sampled(tracks("matroska", ("snow", 20, 4, 64, DEFAULT)))


def test_a_track_that_begins_later_in_the_stream_is_passed_over() -> None:
    """A program may get a track at any time; FFmpeg tells of it with its first packet, and PyAV knows no such track."""
    data = bytearray(encode(numbered(12), "mpegts", "mpeg4", pixel_format="yuv420p"))
    packet_bytes, video_id = 188, 0x100
    begins = [
        start
        for start in range(0, len(data), packet_bytes)
        if data[start + 1] & 0x40 and int.from_bytes(data[start + 1 : start + 3]) & 0x1FFF == video_id
    ]
    data[begins[6] + 2] = 0x44  # the seventh frame is another track's
    with av.open(io.BytesIO(data), "r") as container, pytest.raises(IndexError):
        list(container.demux(video=0))
    _, frames = sampled(bytes(data))
    assert {number_of(frame) for frame in frames} > {0, 11}
