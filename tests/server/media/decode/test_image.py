"""Images of every mode and format against plain arithmetic, real photos against Pillow, damage against nothing."""

import io
import time

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model_executor.processor.geometry import Size
from server.media.decode.image import FORMATS, ImageDecoder, check_source_pixels, image_size
from server.media.errors import MediaError
from server.media.messages import ImageBudget
from tests.support.heif import heic
from tests.support.images import encoded, png_header

BUDGET = ImageBudget(min_pixels=3136, max_pixels=12_845_056, resized=None, max_source_pixels=200_000_000)
PHOTOS = ["astronaut", "coffee", "chelsea", "rocket", "retina", "hubble_deep_field", "brick", "grass", "page", "text"]


def rendered(data: bytes, size: Size | None = None) -> NDArray[np.uint8]:
    image = ImageDecoder(io.BytesIO(data), max_source_pixels=BUDGET.max_source_pixels)
    return image.render(size or image.size)


def prepared(data: bytes, budget: ImageBudget = BUDGET) -> NDArray[np.uint8]:
    image = ImageDecoder(io.BytesIO(data), max_source_pixels=budget.max_source_pixels)
    return image.render(image_size(image.size, budget))


def colors(height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_out_as_they_went_in(kind: str) -> None:
    assert np.array_equal(rendered(encoded(Image.fromarray(colors()), kind)), colors())


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {}), ("AVIF", {}), ("GIF", {})])
def test_lossy_formats_come_out_close_to_the_photo(kind: str, options: dict[str, int]) -> None:
    photo = skimage.data.astronaut()[:200, :300]
    assert np.abs(rendered(encoded(Image.fromarray(photo), kind, **options)).astype(int) - photo).mean() < 8


def test_every_listed_format_is_covered() -> None:
    assert set(FORMATS) == {"PNG", "BMP", "TIFF", "JPEG", "WEBP", "AVIF", "GIF", "HEIF"}


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animation_gives_its_first_image(kind: str) -> None:
    frames = [Image.new("RGB", (56, 56), color) for color in ("red", "green", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    assert np.abs(rendered(data).astype(int) - [255, 0, 0]).max() <= 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    upright = np.repeat(np.repeat(colors(3, 5), 16, 0), 16, 1)
    # How the sensor stored what should be seen as `upright` (EXIF 2.32, table 6).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, dict[str, object]] = {
        "PNG": {},
        "TIFF": {},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options[kind])
    image = ImageDecoder(io.BytesIO(data), max_source_pixels=10**6)
    assert image.size == Size(48, 80)
    assert np.abs(image.render(Size(48, 80)).astype(int) - upright).max() <= (8 if kind == "AVIF" else 0)


def test_damaged_exif_is_ignored_with_a_note() -> None:
    data = encoded(Image.fromarray(colors()), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xffgarbage")
    image = ImageDecoder(io.BytesIO(data), max_source_pixels=10**6)
    assert image.render(image.size).shape == (40, 60, 3)
    assert image.notes in ((), ("The EXIF data is damaged; the image was assumed to be upright.",))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_white(mode: str) -> None:
    random = np.random.default_rng(1)
    samples = random.integers(0, 256, (40, 60, 4 if mode == "RGBA" else 2), np.uint8)
    data = encoded(Image.fromarray(samples, mode), "PNG")
    alpha = samples[..., -1:].astype(np.float64) / 255
    expected = samples[..., :-1] * alpha + 255 * (1 - alpha)
    assert np.abs(rendered(data) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_transparent_palette_entry_is_white(kind: str) -> None:
    image = Image.new("P", (56, 56), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.paste(0, (0, 0, 28, 56))
    pixels = rendered(encoded(image, kind, transparency=0))
    assert (pixels[:, :28] == 255).all()
    assert (pixels[:, 28:] == [10, 200, 30]).all()


def test_transparent_color_of_an_opaque_mode_is_white() -> None:
    image = Image.new("RGB", (56, 56), (1, 2, 3))
    image.paste((9, 8, 7), (0, 0, 28, 56))
    pixels = rendered(encoded(image, "PNG", transparency=(1, 2, 3)))
    assert (pixels[:, :28] == [9, 8, 7]).all()
    assert (pixels[:, 28:] == 255).all()


def test_cmyk_becomes_rgb() -> None:
    samples = np.random.default_rng(2).integers(0, 256, (40, 60, 4), np.uint8)
    pixels = rendered(encoded(Image.fromarray(samples, "CMYK"), "TIFF"))
    paper = 1 - samples.astype(np.float64) / 255
    assert np.abs(pixels - 255 * paper[..., :3] * paper[..., 3:]).max() <= 1.01


def test_bilevel_becomes_black_and_white() -> None:
    bits = np.random.default_rng(3).integers(0, 2, (40, 60)).astype(bool)
    expected = np.repeat(bits[..., None] * np.uint8(255), 3, axis=2)
    assert np.array_equal(rendered(encoded(Image.fromarray(bits), "PNG")), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled_not_clipped(kind: str) -> None:
    samples = np.linspace(0, 65_535, 40 * 60).astype(np.uint16).reshape(40, 60)
    pixels = rendered(encoded(Image.fromarray(samples), kind))
    assert (pixels == pixels[..., :1]).all()
    assert np.abs(pixels[..., 0] - samples / 257).max() <= 0.51


def test_thirty_two_bit_samples_are_rejected() -> None:
    with pytest.raises(MediaError, match="32 bits"):
        rendered(encoded(Image.fromarray(np.zeros((40, 60), np.float32)), "TIFF"))


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("size", [Size(196, 308), Size(588, 616), Size(84, 56), Size(28, 28)], ids=str)
def test_resize_stays_within_one_step_of_pillows_bicubic(photo: str, size: Size) -> None:
    image = Image.fromarray(getattr(skimage.data, photo)()[:600, :600]).convert("RGB")
    expected = np.asarray(image.resize((size.width, size.height), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(rendered(encoded(image, "BMP"), size) - expected).mean() <= 1


@pytest.mark.parametrize("side", [1, 2, 5, 15, 16, 17, 40])
@pytest.mark.parametrize("other", [1, 3, 15, 16, 90])
def test_small_images_grow_as_pillow_grows_them(side: int, other: int) -> None:
    image = Image.fromarray(skimage.data.coffee()[100 : 100 + side, 200 : 200 + other])
    expected = np.asarray(image.resize((112, 84), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(rendered(encoded(image, "PNG"), Size(84, 112)) - expected).mean() <= 1


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("shrink", [3, 6.3, 12.5, 25])
def test_reduced_jpeg_decoding_stays_within_one_step(photo: str, shrink: float, turned: bool) -> None:
    image = Image.fromarray(getattr(skimage.data, photo)()).convert("RGB")
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    data = encoded(image, "JPEG", quality=88, exif=exif)
    full = Image.open(io.BytesIO(data)).convert("RGB")
    full = full.transpose(Image.Transpose.ROTATE_270) if turned else full
    size = Size(max(14, round(full.height / shrink)), max(14, round(full.width / shrink)))
    expected = np.asarray(full.resize((size.width, size.height), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(rendered(data, size) - expected).mean() <= 1


def test_size_follows_the_budget() -> None:
    data = encoded(Image.fromarray(skimage.data.astronaut()), "PNG")
    assert prepared(data).shape == (504, 504, 3)
    small = ImageBudget(min_pixels=3136, max_pixels=100 * 784, resized=None, max_source_pixels=10**6)
    assert prepared(data, small).shape == (280, 280, 3)
    requested = ImageBudget(min_pixels=3136, max_pixels=10**6, resized=(100, 300), max_source_pixels=10**6)
    assert prepared(data, requested).shape == (112, 308, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"x", "not an image"),
        (b"GIF89a", "truncated or corrupt|not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG files are not supported; draw it as a PNG"),
        (b"%PDF-1.7", "PDF files are not supported; send each page as an image"),
        (b"\x00\x00\x00\x18ftypmp42", "not an image"),
        (
            png_header(50_000, 50_000),
            r"50000x50000 px are 2500000000 pixels; the limit is 200000000 .*source_pixels",
        ),
        (png_header(100, 100), "truncated or corrupt"),
        (png_header(20_200, 100), "aspect ratio"),
        (png_header(100, 20_200), "aspect ratio"),
    ],
)
def test_what_is_no_usable_image_is_rejected_at_once(data: bytes, message: str) -> None:
    started_s = time.perf_counter()
    with pytest.raises(MediaError, match=message):
        prepared(data)
    assert time.perf_counter() - started_s < 30


def test_aspect_ratio_of_exactly_200_is_accepted() -> None:
    assert prepared(encoded(Image.new("RGB", (2000, 10)), "PNG")).shape[2] == 3
    with pytest.raises(MediaError, match="aspect ratio"):
        prepared(encoded(Image.new("RGB", (2010, 10)), "PNG"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_image_is_rejected(kind: str, share: float) -> None:
    data = encoded(Image.fromarray(skimage.data.astronaut()[:150, :200]), kind)
    with pytest.raises(MediaError, match=r"truncated or corrupt|not an image"):
        prepared(data[: int(len(data) * share)])


def test_bomb_limit_is_inclusive() -> None:
    check_source_pixels(10, 10, 100)
    with pytest.raises(MediaError, match="101 pixels"):
        check_source_pixels(101, 1, 100)


_SEEDS = [encoded(Image.fromarray(colors()), kind) for kind in FORMATS if kind != "HEIF"] + [heic(colors(64, 64))]


@given(st.sampled_from(_SEEDS), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4))))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_mutated_image_gives_pixels_or_our_error(data: bytes, edits: list[tuple[float, bytes]]) -> None:
    mutated = bytearray(data)
    for place, change in edits:
        start = int(place**3 * len(mutated))
        mutated[start : start + len(change) or start + 7] = change
    try:
        pixels = prepared(bytes(mutated))
    except MediaError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[0] % 28 == pixels.shape[1] % 28 == 0
