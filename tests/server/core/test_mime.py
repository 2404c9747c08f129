"""Pictures and clips told apart by their bytes alone, over everything the decoders read."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from server.core.mime import HEAD_BYTES, detect_modality
from tests.support.images import encoded
from tests.support.videos import encode, numbered, real_video

PICTURE = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))
OTHER = Image.new("RGB", (64, 64), "red")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_pictures(kind: str) -> None:
    assert detect_modality(encoded(PICTURE, kind)[:HEAD_BYTES]) == "image"


@pytest.mark.parametrize("brands", [b"heicmif1heic", b"mif1heicmiaf", b"hevcmsf1hevc", b"heixmif1heix"])
def test_heic_is_a_picture(brands: bytes) -> None:
    assert detect_modality(b"\0\0\0\x18ftyp" + brands[:4] + bytes(4) + brands[4:] + bytes(100)) == "image"


@pytest.mark.parametrize("start", [b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d", b"\x1f\x07\0\x3f"])
def test_mxf_and_dv_are_clips(start: bytes) -> None:
    assert detect_modality(start + bytes(100)) == "video"


def test_big_endian_tiff_is_a_picture() -> None:
    assert detect_modality(b"MM\0*" + bytes(100)) == "image"


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "libx264"), ("mov", "libx264"), ("matroska", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4"),
        ("mpegts", "libx264"), ("mpeg", "mpeg1video"), ("flv", "flv"), ("asf", "wmv2"), ("3gp", "libx264"),
    ],
)  # fmt: skip
def test_clips(container: str, codec: str) -> None:
    assert detect_modality(encode(numbered(10), container, codec)[:HEAD_BYTES]) == "video"


def test_transport_stream_with_time_codes_is_a_clip() -> None:
    plain = encode(numbered(10), "mpegts", "libx264")
    packets = [plain[start : start + 188] for start in range(0, len(plain), 188)]
    assert detect_modality(b"".join(b"\0\0\0\0" + packet for packet in packets)[:HEAD_BYTES]) == "video"


def test_real_clips() -> None:
    for name in ("bikes", "bigbuckbunny"):
        assert detect_modality(real_video(name)[:HEAD_BYTES]) == "video"


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_a_clip(kind: str) -> None:
    data = encoded(PICTURE, kind, save_all=True, append_images=[OTHER], duration=100, loop=0)
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(data))))) == 2
    assert detect_modality(data[:HEAD_BYTES]) == "video"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"G", b"hello, world", b"%PDF-1.7\n", b"PK\x03\x04", b"\x7fELF", b"ID3\x04",
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        b"\0\0\0\x18ftypcrx \0\0\0\0crx isom", b"#EXTM3U\n", b"ffconcat version 1.0\n", b"<svg/>", b"G" * 100,
    ],
)  # fmt: skip
def test_anything_else_is_neither(data: bytes) -> None:
    assert detect_modality(data) is None


@given(st.binary(max_size=600))
@settings(deadline=None)
def test_no_bytes_make_it_fail(data: bytes) -> None:
    for start in (b"", b"RIFF", b"\0\0\0\x18ftyp", b"\xff\xff\xff\xffftyp", b"GIF89a", b"\x89PNG\r\n\x1a\n"):
        assert detect_modality(start + data) in ("image", "video", None)
