"""Color spaces and unusual samples: real encoded files against color arithmetic written down here."""

import io
import struct
from collections.abc import Mapping
from typing import Literal

import av
import numpy as np
import pytest
import skimage.data
import tifffile
from av.video.stream import VideoStream
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from server.media.decode.color import MAX_PROFILE_BYTES
from server.media.decode.image import ImageDecoder
from server.media.errors import MediaError
from tests.support.images import encoded

D50 = (0.9642, 1.0, 0.8249)
# Columns: the primaries' XYZ under D50.
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
ADOBE_GAMMA = 563 / 256
NO_NOTES: tuple[str, ...] = ()


def fixed(*values: float) -> bytes:
    """Numbers as ICC's s15Fixed16."""
    return struct.pack(f">{len(values)}i", *(round(value * 65_536) for value in values))


def profile(space: bytes, connection: bytes, kind: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    """An ICC profile of version 2.4 (ICC.1:2001-04, sections 6.1 and 6.2)."""
    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed(*D50), **tags}
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    date = struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    header = struct.pack(">4xI4s4s4s12s4s28x", 0x02400000, kind, space, connection, date, b"acsp") + fixed(*D50)
    return struct.pack(">I", start + len(body)) + header.ljust(124, b"\0") + table + body


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))


def matrix_profile(primaries: NDArray[np.float64], gamma: float) -> bytes:
    tags = {}
    for name, column in zip(b"rgb", primaries.T, strict=True):
        tags[bytes([name]) + b"XYZ"] = b"XYZ \0\0\0\0" + fixed(*column)
        tags[bytes([name]) + b"TRC"] = curve(gamma)
    return profile(b"RGB ", b"XYZ ", b"mntr", tags)


def gray_profile(gamma: float) -> bytes:
    return profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": curve(gamma)})


def press_lightness(ink: NDArray[np.float64]) -> NDArray[np.float64]:
    """L* of the press below: every color of ink takes a quarter of the light, black takes all; float [..., 4] in."""
    return np.where(ink[..., 3] > 0.5, 0, 100 - 25 * ink[..., :3].sum(-1))


def press_profile() -> bytes:
    """A profile for CMYK images of a press that prints grays: a table of its 16 full tones in CIELAB."""
    ramp = bytes(range(256))
    corners = np.array(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij")).reshape(4, 16).T
    lab = b"".join(bytes([round(lightness * 2.55), 128, 128]) for lightness in press_lightness(corners))
    identity = fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + 4 * ramp + lab + 3 * ramp
    return profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table})


def encoded_srgb(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """0..1 linear light to 0..255 (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def from_adobe(samples: NDArray[np.uint8]) -> NDArray[np.float64]:
    light = (samples / 255) ** ADOBE_GAMMA
    return encoded_srgb(light @ ADOBE_RGB.T @ np.linalg.inv(SRGB).T)


def rendered(data: bytes) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    image = ImageDecoder(io.BytesIO(data), max_source_pixels=10**7)
    return image.render(image.size).astype(np.int64), image.notes


def colors(channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (40, 60, channels), np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_wide_gamut_becomes_srgb(kind: str) -> None:
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    wide = matrix_profile(ADOBE_RGB, ADOBE_GAMMA)
    pixels, notes = rendered(encoded(Image.fromarray(colors()), kind, icc_profile=wide, **options))
    assert np.abs(pixels - from_adobe(colors())).max() <= 3
    assert np.abs(pixels - colors()).max() > 20
    assert notes == NO_NOTES


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_wide_gamut_photo_becomes_srgb(kind: str) -> None:
    photo = Image.fromarray(skimage.data.astronaut()[:200, :200])
    plain, _ = rendered(encoded(photo, kind, quality=95))
    wide = matrix_profile(ADOBE_RGB, ADOBE_GAMMA)
    pixels, _ = rendered(encoded(photo, kind, quality=95, icc_profile=wide))
    assert np.abs(pixels - from_adobe(plain.astype(np.uint8))).mean() <= 1


def test_srgb_profile_changes_nothing() -> None:
    standard = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels, notes = rendered(encoded(Image.fromarray(colors()), "PNG", icc_profile=standard))
    assert np.array_equal(pixels, colors())
    assert notes == NO_NOTES


def test_transparent_wide_gamut_is_converted_before_it_lies_on_white() -> None:
    samples = colors(4)
    wide = matrix_profile(ADOBE_RGB, ADOBE_GAMMA)
    pixels, _ = rendered(encoded(Image.fromarray(samples), "PNG", icc_profile=wide))
    alpha = samples[..., 3:] / 255
    assert np.abs(pixels - (from_adobe(samples[..., :3]) * alpha + 255 * (1 - alpha))).max() <= 3


def test_palette_and_gray_follow_an_rgb_profile() -> None:
    wide = matrix_profile(ADOBE_RGB, ADOBE_GAMMA)
    palette = Image.fromarray(colors()).quantize(16)
    pixels, _ = rendered(encoded(palette, "PNG", icc_profile=wide))
    assert np.abs(pixels - from_adobe(np.asarray(palette.convert("RGB")))).max() <= 3
    gray = colors()[..., 0]
    pixels, _ = rendered(encoded(Image.fromarray(gray), "PNG", icc_profile=wide))
    assert np.abs(pixels - from_adobe(np.repeat(gray[..., None], 3, 2))).max() <= 3


@pytest.mark.parametrize("bits", [8, 16])
def test_linear_gray_becomes_srgb(bits: int) -> None:
    samples = np.linspace(0, 2**bits - 1, 40 * 60).astype(np.uint16).reshape(40, 60)
    image = Image.fromarray(samples.astype(np.uint8) if bits == 8 else samples)
    pixels, notes = rendered(encoded(image, "TIFF", icc_profile=gray_profile(1.0)))
    assert np.abs(pixels[..., 0] - encoded_srgb(samples / (2**bits - 1)))[6:].max() <= 3
    assert notes == NO_NOTES


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_follows_its_profile(kind: str) -> None:
    ink = np.array(np.meshgrid(*[[0, 255]] * 4, indexing="ij"), np.uint8).reshape(4, 16).T
    tiles = np.repeat(np.repeat(ink.reshape(4, 4, 4), 16, 0), 16, 1)
    options: dict[str, object] = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    image = Image.fromarray(np.ascontiguousarray(tiles), "CMYK")
    pixels, notes = rendered(encoded(image, kind, icc_profile=press_profile(), **options))
    lightness = press_lightness(tiles / 255)
    light = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    expected = encoded_srgb(light)[..., None]
    assert np.abs(pixels - expected)[8::16, 8::16].max() <= 4
    assert notes == NO_NOTES


def test_cmyk_jpeg_without_a_profile_is_mixed_simply() -> None:
    ink = np.zeros((32, 32, 4), np.uint8)
    ink[...] = (200, 100, 0, 50)
    pixels, _ = rendered(encoded(Image.fromarray(ink, "CMYK"), "JPEG", quality=100, subsampling=0))
    expected = 255 * (1 - ink[..., :3] / 255) * (1 - ink[..., 3:] / 255)
    assert np.abs(pixels - expected).max() <= 4


def test_lab_tiff_becomes_srgb() -> None:
    photo = Image.fromarray(skimage.data.astronaut()[:200, :200])
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    pixels, _ = rendered(encoded(lab.apply(photo), "TIFF"))
    assert np.abs(pixels - np.asarray(photo)).mean() <= 2


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b"no profile", "is damaged"),
        (matrix_profile(ADOBE_RGB, 2.2)[:200], "is damaged"),
        (matrix_profile(ADOBE_RGB, 2.2).replace(b"RGB XYZ ", b"HSV XYZ "), "is of an unknown color space"),
        (press_profile(), "is for CMYK images, not RGB"),
        (gray_profile(1.0), "is for L images, not RGB"),
        (matrix_profile(ADOBE_RGB, 2.2) + bytes(MAX_PROFILE_BYTES), f"bytes; the limit is {MAX_PROFILE_BYTES}"),
    ],
)
def test_unusable_profile_is_ignored_with_a_note(broken: bytes, reason: str) -> None:
    pixels, notes = rendered(encoded(Image.fromarray(colors()), "TIFF", icc_profile=broken))
    assert np.array_equal(pixels, colors())
    assert len(notes) == 1
    assert reason in notes[0]


@pytest.mark.slow
@given(st.sampled_from([matrix_profile(ADOBE_RGB, 2.2), press_profile(), gray_profile(1.8)]), st.data())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_mutated_profile_is_followed_or_left_out(data: bytes, draw: st.DataObject) -> None:
    mutated = bytearray(data)
    for place, change in draw.draw(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4)))):
        start = int(place**2 * len(mutated))
        mutated[start : start + len(change) or start + 7] = change
    mode = {b"RGB ": "RGB", b"CMYK": "CMYK", b"GRAY": "L"}[data[16:20]]
    pixels, notes = rendered(encoded(Image.new(mode, (8, 8)), "TIFF", icc_profile=bytes(mutated)))
    assert pixels.shape == (8, 8, 3)
    assert len(notes) <= 1


def test_profile_that_unpacks_to_too_much_is_rejected_by_name() -> None:
    data = encoded(Image.fromarray(colors()), "PNG", icc_profile=bytes(MAX_PROFILE_BYTES + 1))
    with pytest.raises(MediaError, match="text chunk or color profile"):
        rendered(data)


def deep_png(samples: NDArray[np.uint16], pixel_format: str) -> bytes:
    """A PNG with 16 bits a sample, [H, W, C]."""
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as output:
        stream = output.add_stream("png", rate=1)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = samples.shape[:2]
        stream.pix_fmt = pixel_format
        frame = av.VideoFrame(stream.width, stream.height, pixel_format)
        plane = frame.planes[0]
        lines = np.zeros((stream.height, plane.line_size), np.uint8)
        lines[:, : samples[0].size * 2] = samples.astype(">u2").reshape(stream.height, -1).view(np.uint8)
        plane.update(lines.tobytes())
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(("pixel_format", "channels"), [("rgb48be", 3), ("rgba64be", 4), ("ya16be", 2)])
def test_sixteen_bit_png_is_scaled_not_clipped(pixel_format: str, channels: int) -> None:
    samples = np.random.default_rng(1).integers(0, 65_536, (40, 60, channels), np.uint16)
    pixels, _ = rendered(deep_png(samples, pixel_format))
    expected = samples / 257
    if channels in (2, 4):
        alpha = expected[..., -1:] / 255
        expected = expected[..., :-1] * alpha + 255 * (1 - alpha)
    assert np.abs(pixels - expected).max() <= 2


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_tiff_is_scaled_not_clipped(order: Literal["<", ">"]) -> None:
    samples = np.random.default_rng(2).integers(0, 65_536, (40, 60, 3), np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(file, samples, photometric="rgb", byteorder=order)
    pixels, _ = rendered(file.getvalue())
    assert np.abs(pixels - samples / 257).max() <= 1


def test_premultiplied_transparency_is_not_multiplied_twice() -> None:
    samples = np.random.default_rng(3).integers(0, 256, (40, 60, 4)).astype(np.uint8)
    samples[..., :3] = np.minimum(samples[..., :3], samples[..., 3:])
    file = io.BytesIO()
    tifffile.imwrite(file, samples, photometric="rgb", extrasamples=["assocalpha"])
    pixels, _ = rendered(file.getvalue())
    visible = samples[..., 3] > 32  # where little is left, unmultiplying is coarse
    expected = samples[..., :3].astype(int) + 255 - samples[..., 3:]
    assert np.abs(pixels - expected)[visible].max() <= 3
