"""Real and generated videos against full decoding with Pillow's bicubic, and against the numbers frames carry."""

import io
import time
from fractions import Fraction
from pathlib import Path

import av
import msgspec
import numpy as np
import pytest
from av.video.stream import VideoStream
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model_executor.processor.geometry import Grid, Size
from server.media.decode.frame_list import FrameList
from server.media.decode.video_source import FrameWriter
from server.media.errors import MediaError
from tests.support.videos import (
    BUDGET,
    TINY,
    Pixels,
    animated_webp,
    announced,
    encode,
    exact_rgb,
    is_close,
    number_of,
    numbered,
    real_video,
    remux,
    sampled,
    silent_audio,
)


def fully_decoded(data: bytes, indices: list[int], size: Size) -> list[Pixels]:
    """Frames by number, each decoded at full size, then resized."""
    with av.open(io.BytesIO(data), mode="r") as container:
        arrays = {i: exact_rgb(frame) for i, frame in enumerate(container.decode(video=0)) if i in indices}
    shape = (size.width, size.height)
    resized = [Image.fromarray(arrays[i]).resize(shape, Image.Resampling.BICUBIC) for i in indices]
    return [np.asarray(image) for image in resized]


@pytest.mark.parametrize(
    ("name", "rate", "count", "indices", "size"),
    [
        ("bikes", 25, 250, [0, 13, 26, 39, 52, 66, 79, 92, 105, 118], Size(280, 644)),
        ("bigbuckbunny", 25, 132, [0, 15, 29, 44, 58, 73, 87, 102, 116, 131], Size(560, 1008)),
    ],
)
def test_real_video_equals_full_decoding(name: str, rate: int, count: int, indices: list[int], size: Size) -> None:
    data = real_video(name)
    video, frames = sampled(data, BUDGET)
    assert video.size == size
    expected = [round(index) for index in np.linspace(0, count - 1, len(frames))]
    assert expected[: len(indices)] == indices
    assert video.frame_times_s == pytest.approx([index / rate for index in expected])
    assert len(frames) == int(count / rate * 2) // 2 * 2
    for ours, theirs in zip(frames, fully_decoded(data, expected, size), strict=True):
        assert is_close(ours, theirs)
    assert video.notes == ()


CONTAINERS = [
    ("mp4", "libx264", {"bf": "3", "g": "12"}, "yuv420p"),
    ("mov", "libx264", {}, "yuv420p"),
    ("matroska", "libx264", {"bf": "2"}, "yuv420p"),
    ("webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}, "yuv420p"),
    ("webm", "libvpx-vp9", {}, "yuv420p"),
    ("avi", "mpeg4", {"bf": "2", "b": "4M"}, "yuv420p"),
    ("avi", "libx264", {"bf": "2"}, "yuv420p"),
    ("avi", "mjpeg", {}, "yuvj420p"),
    ("mov", "mjpeg", {}, "yuvj420p"),
    ("matroska", "mjpeg", {}, "yuvj420p"),
    ("mp4", "mpeg4", {"bf": "2", "b": "4M"}, "yuv420p"),
    ("mov", "mpeg4", {"b": "4M"}, "yuv420p"),
    ("matroska", "mpeg4", {"bf": "2", "b": "4M"}, "yuv420p"),
    ("mpegts", "mpeg4", {"b": "4M"}, "yuv420p"),
    ("mp4", "libvpx-vp9", {}, "yuv420p"),
    ("matroska", "libvpx-vp9", {"lag-in-frames": "16", "auto-alt-ref": "1"}, "yuv420p"),
    ("matroska", "libvpx", {}, "yuv420p"),
    ("mp4", "libx264", {"bf": "2"}, "yuv420p10le"),
    ("mpegts", "libx264", {"bf": "2"}, "yuv420p"),
    ("mpegts", "mpeg2video", {"bf": "1"}, "yuv420p"),
    ("flv", "libx264", {}, "yuv420p"),
    ("mov", "prores_ks", {}, "yuv422p10le"),
    ("matroska", "ffv1", {}, "yuv444p"),
    ("apng", "apng", {}, "rgb24"),
    ("gif", "gif", {}, "rgb8"),
]


@pytest.mark.parametrize(("container", "codec", "options", "pixel_format"), CONTAINERS)
def test_containers_and_codecs_give_the_right_frames(
    container: str, codec: str, options: dict[str, str], pixel_format: str
) -> None:
    rate = 10 if container == "gif" else 25
    data = encode(numbered(60), container, codec, rate=rate, options=options, pixel_format=pixel_format)
    video, frames = sampled(data)
    count = {25: 4, 10: 12}[rate]
    indices = [round(index) for index in np.linspace(0, 59, count)]
    if container != "gif":  # its palette is too coarse for numbers
        assert [number_of(frame) for frame in frames] == indices
    assert video.frame_times_s == pytest.approx([index / rate for index in indices])
    assert video.source_size == Size(48, 64)
    assert announced(data) == video


HEVC = ("libx265", {"x265-params": "log-level=none:bframes=3"})
AV1 = ("libsvtav1", {"svtav1-params": "lp=1"})


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize(
    ("container", "encoder"),
    [
        *((container, HEVC) for container in ("mp4", "mov", "matroska", "mpegts")),
        *((container, AV1) for container in ("mp4", "matroska", "webm")),
    ],
)
def test_hevc_and_av1_give_the_right_frames(
    container: str, encoder: tuple[str, dict[str, str]], pixel_format: str
) -> None:
    codec, options = encoder
    data = encode(numbered(30, height=64, width=64), container, codec, options=options, pixel_format=pixel_format)
    video, frames = sampled(data)
    assert [number_of(frame) for frame in frames] == [0, 10, 19, 29]
    assert announced(data) == video


@pytest.mark.parametrize(
    ("container", "codec", "pixel_format"),
    [("webm", "libvpx", "yuv420p"), ("webm", "libvpx-vp9", "yuv420p"), ("avi", "mjpeg", "yuvj420p")],
)
@pytest.mark.parametrize(("height", "width"), [(49, 65), (50, 67), (17, 64)])
def test_odd_sizes_are_kept(container: str, codec: str, pixel_format: str, height: int, width: int) -> None:
    video, frames = sampled(
        encode(numbered(8, height=height, width=width), container, codec, pixel_format=pixel_format)
    )
    assert video.source_size == Size(height, width)
    assert [number_of(frame) for frame in frames] == [0, 2, 5, 7]


def test_very_large_frames_of_long_videos_shrink_far() -> None:
    data = encode(numbered(4, height=1088, width=1920), options={"preset": "ultrafast"})
    video, frames = sampled(data, msgspec.structs.replace(TINY, max_pixels=784))
    assert video.size == Size(28, 28)
    expected = fully_decoded(data, [0, 1, 2, 3], video.size)
    assert all(is_close(ours, theirs) for ours, theirs in zip(frames, expected, strict=True))


@pytest.mark.parametrize(("count", "indices"), [(1, [0, 0]), (2, [0, 1]), (3, [0, 2]), (5, [0, 1, 3, 4])])
def test_very_short_videos_are_taken(count: int, indices: list[int]) -> None:
    video, frames = sampled(encode(numbered(count)))
    assert [number_of(frame) for frame in frames] == indices
    assert video.grid.t == len(indices) // 2


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska"])
def test_variable_rate_is_sampled_by_presentation_time(container: str) -> None:
    gaps_ms = np.random.default_rng(0).choice([20, 40, 60, 200], 119)
    ticks_ms = [0, *(int(tick) for tick in np.cumsum(gaps_ms))]
    video, frames = sampled(encode(numbered(120), container, ticks_ms=ticks_ms))
    assert len(frames) == (ticks_ms[-1] + 50) * 2 // 1000 // 2 * 2
    moments_ms = np.linspace(0, ticks_ms[-1], len(frames))
    for frame, time_s, moment_ms in zip(frames, video.frame_times_s, moments_ms, strict=True):
        number = number_of(frame)
        assert time_s * 1000 == pytest.approx(ticks_ms[number], abs=1)
        shown_until_ms = (*ticks_ms, 10**9)[number + 1]
        assert ticks_ms[number] - 31 <= moment_ms <= shown_until_ms


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_display_rotation_is_applied(rotation: int) -> None:
    data = encode(numbered(10), rotation=rotation)
    with av.open(io.BytesIO(data), mode="r") as container:
        stored = next(container.decode(video=0))
        upright = np.rot90(exact_rgb(stored), stored.rotation // 90)
    video, frames = sampled(data)
    assert video.source_size == Size(*upright.shape[:2])
    expected = Image.fromarray(upright).resize((video.size.width, video.size.height), Image.Resampling.BICUBIC)
    assert is_close(frames[0], np.asarray(expected))


def test_anamorphic_pixels_widen_the_image() -> None:
    video, _ = sampled(encode(numbered(10), aspect=Fraction(2)))
    assert video.source_size == Size(48, 128)
    video, _ = sampled(encode(numbered(10), aspect=Fraction(1, 2)))
    assert video.source_size == Size(96, 64)
    video, _ = sampled(real_video("carphone_pristine"), BUDGET)
    assert video.source_size == Size(144, 193)


@pytest.mark.parametrize("is_full_range", [False, True])
@pytest.mark.parametrize(("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114), (9, 0.2627, 0.0593)])
def test_color_matrix_and_range_are_followed(matrix: int, red: float, blue: float, *, is_full_range: bool) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "5"})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if is_full_range else 1
        for number in range(4):
            frame = av.VideoFrame(64, 48, "yuv420p")
            for plane, value in zip(frame.planes, (200, 110, 140), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            frame.pts, frame.colorspace, frame.color_range = number, matrix, 2 if is_full_range else 1
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    # ITU-T H.273, equations 8-1 and following.
    y, cb, cr = (200, -18, 12) if is_full_range else (184 * 255 / 219, -18 * 255 / 224, 12 * 255 / 224)
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    expected = [r, (y - red * r - blue * b) / (1 - red - blue), b]
    assert np.abs(sampled(file.getvalue())[1][0] - np.array(expected)).max() <= 2


def test_transparent_video_is_composited_on_white() -> None:
    images = [Image.new("RGBA", (64, 48), (200, 200, 200 + number, 255)) for number in range(4)]
    for image in images:
        image.paste((200, 10, 10, 0), (0, 0, 32, 48))
    file = io.BytesIO()
    images[0].save(file, "PNG", save_all=True, append_images=images[1:], duration=100)
    _, pixels = sampled(file.getvalue())
    assert (pixels[0][:, :24] == 255).all()
    assert (pixels[0][:, 40:] == 200).all()


@pytest.mark.parametrize(
    ("change", "indices"),
    [
        ({"fps": 5.0}, [round(index) for index in np.linspace(0, 99, 20)]),
        ({"max_frames": 2}, [0, 99]),
        ({"min_frames": 10}, [round(index) for index in np.linspace(0, 99, 10)]),
        ({"video_start": 1.0, "video_end": 3.0}, [25, 42, 58, 75]),
        ({"video_start": 3.9}, [98, 99]),
    ],
)
def test_limits_of_clients_are_followed(change: dict[str, float], indices: list[int]) -> None:
    _, frames = sampled(encode(numbered(100)), msgspec.structs.replace(TINY, **change))
    assert [number_of(frame) for frame in frames] == indices


def test_sizes_follow_the_budget() -> None:
    data = encode(numbered(100, height=180, width=320))
    assert sampled(data, BUDGET)[0].size == Size(252, 448)
    assert sampled(data, msgspec.structs.replace(BUDGET, min_pixels=784))[0].size == Size(168, 308)
    assert sampled(data, msgspec.structs.replace(BUDGET, max_pixels=50_000))[0].size == Size(140, 280)
    assert sampled(data, msgspec.structs.replace(BUDGET, total_pixels=100_000))[0].size == Size(112, 196)
    assert sampled(data, msgspec.structs.replace(BUDGET, resized=(100, 100), min_pixels=784))[0].size == Size(112, 112)


@pytest.mark.slow
def test_hour_long_video_decodes_only_what_it_needs(tmp_path: Path) -> None:
    # 90 000 frames in groups of 25: the same second 3600 times.
    second = encode(numbered(25), "mp4", "mpeg4", options={"g": "25", "bf": "0"})
    data = remux(second, tmp_path / "hour.mp4", repeat=3600)
    started_s = time.process_time()
    video, frames = sampled(data, msgspec.structs.replace(TINY, total_pixels=16_384 * 784))
    assert time.process_time() - started_s < 10
    indices = [round(index) for index in np.linspace(0, 89_999, 768)]
    assert [number_of(frame) for frame in frames] == [index % 25 for index in indices]
    assert video.frame_times_s[-1] == pytest.approx(89_999 / 25)
    assert video.grid.num_tokens <= 16_384
    assert video.notes == ("At most 768 frames are sampled: 0.213 a second, not 2.",)


def test_open_groups_of_images_are_followed_back() -> None:
    parameters = {"x264-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:scenecut=0:log=-1"}
    data = encode(numbered(200), "mp4", options=parameters)
    for fps in (0.5, 1.0, 3.0):
        video, frames = sampled(data, msgspec.structs.replace(TINY, fps=fps))
        indices = [round(index) for index in np.linspace(0, 199, len(frames))]
        expected = fully_decoded(data, indices, video.size)
        assert all(is_close(ours, theirs) for ours, theirs in zip(frames, expected, strict=True))


def test_index_at_either_end_is_read(tmp_path: Path) -> None:
    data = encode(numbered(50))
    first = remux(data, tmp_path / "first.mp4", options={"movflags": "faststart"})
    pieces = remux(data, tmp_path / "pieces.mp4", options={"movflags": "frag_keyframe+empty_moov"})
    assert first.find(b"moov") < first.find(b"mdat")
    for variant in (data, first, pieces):
        assert [number_of(frame) for frame in sampled(variant)[1]] == [0, 16, 33, 49]


@pytest.mark.parametrize("damage", ["cut", "zeros", "noise"])
def test_corrupt_tail_is_left_out_and_told(damage: str, tmp_path: Path) -> None:
    data = bytearray(remux(real_video("bikes"), tmp_path / "video.mp4", options={"movflags": "faststart"}))
    middle = len(data) * 6 // 10
    tail = len(data) - middle
    data[middle:] = {"cut": b"", "zeros": bytes(tail), "noise": np.random.default_rng(0).bytes(tail)}[damage]
    video, frames = sampled(bytes(data), BUDGET)
    assert len(frames) == 10
    assert 5 < video.frame_times_s[-1] < 6
    assert "cut off" in video.notes[0] if damage == "cut" else "do not decode and were left out" in video.notes[0]
    indices = [round(25 * time_s) for time_s in video.frame_times_s[:-1]]
    expected = fully_decoded(real_video("bikes"), indices, video.size)
    assert all(is_close(ours, theirs) for ours, theirs in zip(frames[:-1], expected, strict=True))


def test_edited_video_is_not_called_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "edited.mp4"
    with (
        av.open(io.BytesIO(encode(numbered(100))), mode="r") as source,
        av.open(str(path), "w", format="mp4") as output,
    ):
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts = packet.pts - 15_360, packet.dts - 15_360  # 30 frames before the start
                packet.stream = stream
                output.mux(packet)
    video, frames = sampled(path.read_bytes())
    assert [number_of(frame) for frame in frames][-1] == 99
    assert video.notes == ()


def test_late_start_counts_from_the_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "late.mp4"
    with (
        av.open(io.BytesIO(encode(numbered(50))), mode="r") as source,
        av.open(str(path), "w", format="mp4") as output,
    ):
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts = packet.pts + 51_200, packet.dts + 51_200  # 4 seconds of nothing
                packet.stream = stream
                output.mux(packet)
    video, frames = sampled(path.read_bytes())
    assert [number_of(frame) for frame in frames] == [0, 16, 33, 49]
    assert video.frame_times_s == pytest.approx([0, 16 / 25, 33 / 25, 49 / 25])
    assert video.notes == ()


def test_animated_webp_is_a_clip() -> None:
    video, frames = sampled(animated_webp(numbered(60), 40))
    assert [number_of(frame) for frame in frames] == [0, 20, 39, 59]
    assert video.frame_times_s == pytest.approx([0, 0.8, 1.56, 2.36])
    assert video.effective_fps == pytest.approx(4 / 2.4)
    assert video.notes == ()


def test_animated_webp_is_sampled_by_presentation_time() -> None:
    shown_ms = [100, 100, 3000, 100, 100, 100, 500]
    video, frames = sampled(animated_webp(numbered(7), shown_ms))
    assert len(frames) == 6
    assert [number_of(frame) for frame in frames] == [0, 2, 2, 2, 2, 6]
    assert video.frame_times_s[-1] == pytest.approx(3.5)


def test_hasty_animated_webp_is_shown_as_browsers_do() -> None:
    video, _ = sampled(animated_webp(numbered(20), 10))
    assert video.frame_times_s[-1] == pytest.approx(1.9)


def test_still_webp_is_a_video_of_one_frame() -> None:
    file = io.BytesIO()
    Image.fromarray(next(iter(numbered(1)))).save(file, "WEBP", lossless=True)
    video, frames = sampled(file.getvalue())
    assert [number_of(frame) for frame in frames] == [0, 0]
    assert video.source_size == Size(48, 64)


def test_transparent_animated_webp_lies_on_white() -> None:
    frames = np.full((5, 48, 64, 4), 255, np.uint8)
    frames[:, :, 32:] = (200, 200, 7, 255)
    frames[:, :, :32, 3] = 0
    frames[:, 0, 0, 0] = range(5)
    _, pixels = sampled(animated_webp(frames, 100))
    assert (pixels[0][8:, :24] == 255).all()
    assert (pixels[0][8:, 40:] == (200, 200, 7)).all()


def test_damaged_animated_webp_gives_what_comes_before_the_damage() -> None:
    data = bytearray(animated_webp(numbered(60), 100))
    place = data.index(b"ANMF", len(data) // 2)
    data[place + 40 : place + 44] = bytes(4)
    video, frames = sampled(bytes(data))
    assert [number_of(frame) for frame in frames] == [0, 6, 12, 17, 23, 29]
    assert video.notes == ("30 of 60 frames do not decode and were left out.",)


def test_animated_webp_over_a_limit_is_rejected_before_it_is_decoded() -> None:
    data = animated_webp(numbered(30), 100)
    with pytest.raises(MediaError, match=r"lasts 3\.0 s; the limit is 2 s .*max_video_s"):
        sampled(data, msgspec.structs.replace(TINY, max_s=2.0))
    with pytest.raises(MediaError, match=r"3072 pixels; the limit is 3000 .*max_source_pixels"):
        sampled(data, msgspec.structs.replace(TINY, max_source_pixels=3000))
    huge = bytearray(data)
    huge[24:30] = b"\xff\xff\x00" * 2
    with pytest.raises(MediaError, match="65536x65536 px"):
        sampled(bytes(huge))
    with pytest.raises(MediaError, match="truncated or corrupt"):
        sampled(data[:60])


def test_animated_webp_that_is_cut_off_gives_its_whole_frames() -> None:
    data = animated_webp(numbered(60), 100)
    video, frames = sampled(data[: data.index(b"ANMF", len(data) // 2) + 20])
    assert [number_of(frame) for frame in frames] == [0, 6, 12, 17, 23, 29]
    assert video.notes == ("The file is cut off after 30 frames.",)


PLAYLISTS = [
    b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'></MPD>",
    b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"nothing of the kind", "not a video"),
        (silent_audio(), "no video stream"),
        (real_video("bikes").replace(b"avc1", b"zzzz"), "codec is unknown"),
        (real_video("bikes")[:100_000], "not a video|corrupt"),
        *((playlist, "not a video") for playlist in PLAYLISTS),
    ],
)
def test_what_is_no_usable_video_is_rejected_at_once(data: bytes, message: str) -> None:
    started_s = time.perf_counter()
    with pytest.raises(MediaError, match=message):
        sampled(data)
    assert time.perf_counter() - started_s < 30


def test_video_over_a_limit_is_rejected_before_it_is_decoded() -> None:
    data = encode(numbered(100))
    with pytest.raises(MediaError, match=r"lasts 4\.0 s; the limit is 3 s .*max_video_s"):
        sampled(data, msgspec.structs.replace(TINY, max_s=3.0))
    with pytest.raises(MediaError, match=r"3072 pixels; the limit is 3000 .*max_source_pixels"):
        sampled(data, msgspec.structs.replace(TINY, max_source_pixels=3000))


def test_images_make_a_clip() -> None:
    files = []
    for pixels in numbered(5):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        files.append(file)
    frames: list[Pixels] = []

    def open_writer(grid: Grid) -> FrameWriter:
        assert grid.t == 3
        return lambda index, pixels: frames.append(pixels)

    source = FrameList(files, msgspec.structs.replace(TINY, fps=4.0))
    assert not frames
    video = source.write(open_writer)
    assert video == source.plan
    assert [number_of(frame) for frame in frames] == [0, 1, 2, 3, 4, 4]
    assert video.frame_times_s == (0.0, 0.25, 0.5, 0.75, 1.0, 1.0)
    assert video.effective_fps == 4.0

    other = io.BytesIO()
    Image.new("RGB", (60, 60)).save(other, "PNG")
    with pytest.raises(MediaError, match="Frame 5 of the list is 60x60 px, the first 64x48 px"):
        FrameList([*files, other], TINY)


_SEEDS = [
    animated_webp(numbered(6), 250),
    *(
        encode(numbered(12), container, codec, pixel_format=pixel_format)
        for container, codec, pixel_format in (
            ("mp4", "libx264", "yuv420p"),
            ("matroska", "libx264", "yuv420p"),
            ("mpegts", "libx264", "yuv420p"),
            ("avi", "mpeg4", "yuv420p"),
            ("mov", "mjpeg", "yuvj420p"),
            ("webm", "libvpx", "yuv420p"),
            ("webm", "libvpx-vp9", "yuv420p"),
            ("apng", "apng", "rgb24"),
            ("gif", "gif", "rgb8"),
        )
    ),
]


@given(st.sampled_from(_SEEDS), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4))))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_mutated_video_gives_frames_or_our_error(data: bytes, edits: list[tuple[float, bytes]]) -> None:
    mutated = bytearray(data)
    for place, change in edits:
        start = int(place**2 * len(mutated))  # headers more often
        mutated[start : start + len(change) or start + 7] = change
    try:
        video, frames = sampled(bytes(mutated))
    except MediaError:
        return
    assert len(frames) == 2 * video.grid.t == len(video.frame_times_s)
