"""What single formats of images need: HEIC as phones write it, TIFF pages, odd or damaged BMP, JPEG and PNG."""

import io
import struct
import zlib
from typing import Any

import av
import msgspec
import numpy as np
import pytest
import skimage.data
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from model_executor.processor.geometry import Size
from server.media.decode.image import ImageDecoder
from server.media.errors import MediaError
from tests.server.media.decode.test_wide_color import HLG, PQ, deep, made_hdr, patches
from tests.support.heif import grid, heic
from tests.support.images import encoded
from tests.support.videos import TINY, sampled

Pixels = NDArray[np.uint8]

PHOTO: Pixels = np.ascontiguousarray(skimage.data.astronaut()[:200, :300])


def read(data: bytes) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    image = ImageDecoder(io.BytesIO(data), max_source_pixels=200_000_000)
    pixels = image.render(image.size)
    return pixels.astype(np.int64), image.notes


def differs(data: bytes, expected: Pixels) -> float:
    return float(np.abs(read(data)[0] - expected).mean())


# HEIC


def test_a_heic_is_read() -> None:
    assert differs(heic(PHOTO), PHOTO) < 2
    assert differs(heic(PHOTO[:66, :102]), PHOTO[:66, :102]) < 2


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
@pytest.mark.parametrize("tile", [64, 128])
def test_a_heic_of_tiles_is_read_whole_and_upright(tile: int, quarter_turns: int) -> None:
    data = grid(PHOTO, tile, quarter_turns=quarter_turns, hidden=np.zeros((tile, tile, 3), np.uint8))
    assert differs(data, np.rot90(PHOTO, quarter_turns)) < 2


def test_transparent_heic_lies_on_white() -> None:
    pixels = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)])
    pixels[:100, :, 3] = 0
    shown, _ = read(heic(pixels))
    assert shown[10:90].min() > 250
    assert np.abs(shown[110:] - PHOTO[110:]).mean() < 2


def test_a_burst_shows_its_primary_image() -> None:
    frames = [np.full((64, 64, 3), level, np.uint8) for level in (20, 200, 90)]
    shown, notes = read(heic(*frames, primary=1))
    assert abs(shown.mean() - 200) < 2
    assert notes == ("The primary image of the file's 3 was read.",)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_heic_looks_like_sdr(transfer: int) -> None:
    samples = np.round(np.clip(made_hdr(patches(), transfer, srgb=True), 0, 1) * 255).astype(np.uint8)
    data = heic(samples, points=(9, transfer))
    shown, notes = read(data)
    assert np.abs(shown - patches()).mean() < 6
    assert "mapped to SDR by ITU-R BT.2390" in notes[0]


def test_display_p3_heic_is_converted() -> None:
    data = heic(np.full((64, 64, 3), (200, 60, 60), np.uint8), points=(12, 13))
    shown, notes = read(data)
    # CSS Color 4: color(display-p3 0.784 0.235 0.235) is rgb(216 46 53).
    assert np.abs(shown.mean(axis=(0, 1)) - [216, 46, 53]).max() <= 4
    assert notes == ("The colors were converted from Display P3 to BT.709.",)


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_a_damaged_heic_is_called_one(cut: float) -> None:
    data = grid(PHOTO, 128)
    with pytest.raises(MediaError, match="corrupt") as caught:
        read(data[: int(len(data) * cut)])
    assert caught.value.code == "media_parse_error"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF"])
def test_a_still_sent_as_a_video_is_told_so(kind: str) -> None:
    with pytest.raises(MediaError, match=rf"is an image \({kind}\), not a video; send it as an image"):
        sampled(encoded(Image.fromarray(PHOTO), kind))


@pytest.mark.parametrize("tile", [None, 64])
def test_a_heic_sent_as_a_video_is_one_frame(tile: int | None) -> None:
    data = heic(PHOTO) if tile is None else grid(PHOTO, tile)
    video, frames = sampled(data, msgspec.structs.replace(TINY, max_pixels=300 * 224))
    assert video.source_size == Size(200, 300)
    expected = Image.fromarray(PHOTO).resize((video.size.width, video.size.height), Image.Resampling.BICUBIC)
    assert np.abs(frames[0].astype(int) - np.asarray(expected)).mean() < 2
    assert len(frames) == 2


# AVIF and PNG with code points


def avif(samples: NDArray[np.float64], primaries: int, transfer: int) -> bytes:
    """A still of 10 bits with code points; samples [H, W, 3] of 0..1."""
    file = io.BytesIO()
    height, width = samples.shape[:2]
    with av.open(file, "w", format="avif") as output:
        stream = output.add_stream("libsvtav1", rate=1, options={"svtav1-params": "lp=1:avif=1", "crf": "10"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = primaries, transfer, 9, 1
        frame = av.VideoFrame(width, height, "gbrp16le")
        for plane, content in zip(frame.planes, deep(samples)[[1, 2, 0]], strict=True):
            rows = np.zeros((height, plane.line_size // 2), np.uint16)
            rows[:, :width] = content
            plane.update(rows.tobytes())
        frame = frame.reformat(format="yuv420p10le", dst_colorspace=9, dst_color_range=1)
        frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = primaries, transfer, 9, 1
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_avif_looks_like_sdr(transfer: int) -> None:
    shown, notes = read(avif(made_hdr(patches(), transfer, srgb=True), 9, transfer))
    assert np.abs(shown - patches()).mean() < 6
    assert "mapped to SDR" in notes[0]


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_cicp(data: bytes, primaries: int, transfer: int) -> bytes:
    place = data.index(b"IDAT") - 4
    return data[:place] + png_chunk(b"cICP", bytes([primaries, transfer, 0, 1])) + data[place:]


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_hdr_png_looks_like_sdr(transfer: int, mode: str) -> None:
    samples = np.round(np.clip(made_hdr(patches(), transfer, srgb=True), 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(samples).convert(mode)
    shown, notes = read(with_cicp(encoded(image), 9, transfer))
    assert np.abs(shown - patches()).mean() < 6
    assert "mapped to SDR" in notes[0]
    same, none = read(with_cicp(encoded(image), 1, 13))
    assert np.array_equal(same, samples) and none == ()


@pytest.mark.parametrize("kind", ["wrong", "flipped", "palette", "frames"])
def test_a_png_with_a_wrong_checksum_is_damaged(kind: str) -> None:
    image = Image.fromarray(PHOTO).quantize(16) if kind == "palette" else Image.fromarray(PHOTO)
    name = {"palette": b"PLTE", "frames": b"fdAT"}.get(kind, b"IDAT")
    animation: dict[str, Any] = {"save_all": True, "append_images": [Image.new("RGB", image.size)], "duration": 100}
    data = bytearray(encoded(image, **(animation if kind == "frames" else {})))
    read(bytes(data))
    place = data.index(name)
    num_bytes = int.from_bytes(data[place - 4 : place])
    data[place + 4 + (num_bytes if kind == "wrong" else num_bytes // 2)] ^= 0x10
    with pytest.raises(MediaError, match=f"checksum of its {name.decode()} chunk is wrong|corrupt") as caught:
        read(bytes(data)) if kind != "frames" else sampled(bytes(data))
    assert caught.value.code == "media_parse_error"


# TIFF


def tiff(pages: list[dict[int, tuple[int, list[int]]]], contents: list[bytes], order: str = "<") -> bytes:
    """A TIFF of uncompressed pages: by tag, type (3: 16 bits, 4: 32 bits) and values; strips follow each other."""
    place = 8 + sum(map(len, contents))
    data = bytearray(struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, place) + b"".join(contents))
    for number, tags in enumerate(pages):
        entries, extra = b"", b""
        end = len(data) + 2 + 12 * len(tags) + 4
        for tag, (kind, values) in sorted(tags.items()):
            packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
            if len(packed) > 4:
                entry = struct.pack(f"{order}I", end + len(extra))
                extra += packed
            else:
                entry = packed.ljust(4, b"\0")
            entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + entry
        following = end + len(extra) if number + 1 < len(pages) else 0
        data += struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following) + extra
    return bytes(data)


def page(height: int, width: int, start: int, planes: list[int], **more: int) -> dict[int, tuple[int, list[int]]]:
    """Tags of a page whose planes follow each other; `planes` are their sizes in bytes."""
    starts = [start + sum(planes[:number]) for number in range(len(planes))]
    tags: dict[int, tuple[int, list[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        259: (3, [1]),
        273: (4, starts),
        278: (4, [height]),
        279: (4, planes),
    }
    return tags | {int(name[1:]): (3, [value]) for name, value in more.items()}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("samples", [3, 4])
def test_planes_of_sixteen_bits_are_read(samples: int, order: str) -> None:
    height, width = PHOTO.shape[:2]
    picture = PHOTO if samples == 3 else np.dstack([PHOTO, np.full((height, width), 255, np.uint8)])
    planes = [(picture[..., n].astype(np.uint16) * 257).astype(f"{order}u2").tobytes() for n in range(samples)]
    tags = page(height, width, 8, [len(plane) for plane in planes], t262=2, t277=samples, t284=2)
    tags[258] = (3, [16] * samples)
    if samples == 4:
        tags[338] = (3, [2])
    assert differs(tiff([tags], planes, order), PHOTO) == 0


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("zero_is_white", [True, False])
def test_gray_is_as_bright_as_it_says(zero_is_white: bool, bits: int, order: str) -> None:
    gray = PHOTO[..., 1]
    stored = 255 - gray if zero_is_white else gray
    content = stored.tobytes() if bits == 8 else (stored.astype(np.uint16) * 257).astype(f"{order}u2").tobytes()
    tags = page(gray.shape[0], gray.shape[1], 8, [len(content)], t258=bits, t262=0 if zero_is_white else 1, t277=1)
    assert differs(tiff([tags], [content], order), np.repeat(gray[..., None], 3, -1)) == 0


def test_compressed_gray_whose_zero_is_white_is_inverted() -> None:
    gray = PHOTO[..., 1]
    image = Image.fromarray((255 - gray).astype(np.uint16) * 257)
    data = encoded(image, "TIFF", compression="tiff_lzw", tiffinfo={262: 0})
    assert differs(data, np.repeat(gray[..., None], 3, -1)) <= 1


def rgb_page(pixels: Pixels, start: int, kind: int) -> tuple[dict[int, tuple[int, list[int]]], bytes]:
    content = pixels.tobytes()
    tags = page(pixels.shape[0], pixels.shape[1], start, [len(content)], t262=2, t277=3)
    return tags | {254: (4, [kind]), 258: (3, [8, 8, 8])}, content


def test_a_reduced_first_page_is_passed_over() -> None:
    small, first = rgb_page(np.zeros((50, 75, 3), np.uint8), 8, 1)
    large, second = rgb_page(PHOTO, 8 + len(first), 0)
    shown, notes = read(tiff([small, large], [first, second]))
    assert np.array_equal(shown, PHOTO)
    assert notes[0].startswith("Page 2 of the TIFF's 2 was read; those before it are smaller copies.")


def test_pages_of_a_document_are_told() -> None:
    pages = [Image.new("RGB", (60, 80), color) for color in ("red", "green", "blue")]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    shown, notes = read(data)
    assert shown[0, 0].tolist() == [255, 0, 0]
    assert notes == ("Page 1 of the TIFF's 3 was read. Send other pages as images of their own.",)


@pytest.mark.parametrize("kind", ["thumbnail only", "sensor", "DNG", "Canon"])
def test_raw_files_of_cameras_are_refused_by_name(kind: str) -> None:
    small, content = rgb_page(np.zeros((50, 75, 3), np.uint8), 8, 1)
    sensor = page(200, 300, 8, [len(content)], t254=0, t258=16, t262=32_803, t277=1)
    data = {
        "thumbnail only": tiff([small], [content]),
        "sensor": tiff([small, sensor], [content]),
        "DNG": tiff([small | {50_706: (4, [1]), 330: (4, [8])}], [content]),
        "Canon": b"II*\0\x10\0\0\0CR\x02\0" + bytes(4) + tiff([small], [content])[8:],
    }[kind]
    with pytest.raises(MediaError, match=r"camera's raw file|Raw camera files are not supported") as caught:
        read(data)
    assert caught.value.code == "invalid_media_format"


# BMP and JPEG


@pytest.mark.parametrize("header", [40, 56, 108, 124])
@pytest.mark.parametrize("alpha", [0, 255, 128])
def test_a_bmp_of_zero_alpha_is_opaque(header: int, alpha: int) -> None:
    height, width = 32, 48
    pixels = PHOTO[:height, :width]
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", header, width, -height, 1, 32, 0 if header == 40 else 3, 0, 0, 0, 0, 0)
    info = (info + (b"" if header == 40 else masks)).ljust(header, b"\0")
    body = np.dstack([pixels[..., ::-1], np.full((height, width), alpha, np.uint8)]).tobytes()
    data = b"BM" + struct.pack("<IHHI", 14 + len(info) + len(body), 0, 0, 14 + len(info)) + info + body
    shown, _ = read(data)
    if header == 40 or alpha != 128:
        assert np.array_equal(shown, pixels)
    else:
        assert np.abs(shown - (pixels * 128.0 + 255 * 127.0) / 255).max() <= 1.1


@pytest.mark.parametrize(("kind", "options"), [("baseline", {}), ("progressive", {"progressive": True}), ("gray", {})])
@pytest.mark.parametrize("ends_with", [b"", b"\xff", b"\0\0\0"])
def test_a_jpeg_that_lacks_its_end_marker_only_is_read(kind: str, options: dict[str, bool], ends_with: bytes) -> None:
    image = Image.fromarray(PHOTO).convert("L" if kind == "gray" else "RGB")
    data = encoded(image, "JPEG", quality=90, **options)
    expected, _ = read(data)
    if ends_with == b"\0\0\0":
        assert np.array_equal(read(data + ends_with)[0], expected)
        return
    shown, notes = read(data[:-2] + ends_with)
    assert np.array_equal(shown, expected)
    assert notes == ("The JPEG lacks its end marker; it was read as it is.",)


@pytest.mark.parametrize("missing", [8, 12, 40, 400, 5000])
@pytest.mark.parametrize("size", [None, Size(56, 84)])
def test_a_jpeg_that_lacks_more_is_damaged(missing: int, size: Size | None) -> None:
    data = encoded(Image.fromarray(PHOTO), "JPEG", quality=90)[:-missing]
    image = ImageDecoder(io.BytesIO(data), max_source_pixels=200_000_000)
    with pytest.raises(MediaError, match="truncated or corrupt; send it again"):
        image.render(size or image.size)
