"""HDR and wide colors against exact arithmetic: the formulas of the reports in float64, without tables or resizing."""

import io
from fractions import Fraction

import av
import msgspec
import numpy as np
import pytest
import skimage.data
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from server.media.decode.wide_color import ColorSpace, color_space, nits_from_pq, pq_from_nits, scene_from_hlg, to_sdr
from tests.support.videos import BUDGET, TINY, Pixels, sampled

Floats = NDArray[np.float64]

PQ, HLG = 16, 18
WHITE = 203.0
# Recommendation ITU-R BT.2087-0, table in annex 1, section 3 gives the inverse; this is BT.709 to BT.2020.
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])


def hlg_samples(nits: Floats) -> Floats:
    """Display light in BT.2020 to HLG: the inverse OOTF of a display of 1000 cd/m2, and the OETF (BT.2100, table 5)."""
    light = nits / 1000
    luminance = np.maximum(light @ LUMA_2020, 1e-12)
    scene = light * luminance[..., None] ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def made_hdr(pixels: Pixels, transfer: int, *, brightness: float = 1.0, srgb: bool = False) -> Floats:
    """SDR pixels as BT.2408 maps them: light at 203 cd/m2, BT.2020, then PQ or HLG; samples of 0..1.

    The light is that of a BT.1886 display, or of an sRGB one.
    """
    samples = pixels / 255
    light = np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4) if srgb else samples**2.4
    nits = light @ TO_BT2020.T * WHITE * brightness
    return pq_from_nits(nits) if transfer == PQ else hlg_samples(nits)


def exactly(samples: Floats, transfer: int) -> Floats:
    """What SDR shows of HDR, step by step; samples [N, 3] to 0..255."""
    if transfer == PQ:
        nits = nits_from_pq(samples)
    else:
        scene = scene_from_hlg(samples)
        nits = 1000 * scene * (scene @ LUMA_2020)[..., None] ** 0.2
    largest = nits.max(axis=-1)
    peak = np.quantile(largest, 0.99)
    if peak > WHITE:  # BT.2390, section 5.4.1, with blacks of zero
        end, most = pq_from_nits(peak), pq_from_nits(np.float64(WHITE)) / pq_from_nits(peak)
        e1 = np.minimum(pq_from_nits(largest) / end, 1)
        knee = 1.5 * most - 0.5
        t = (e1 - knee) / (1 - knee)
        e2 = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
        mapped = nits_from_pq(np.where(e1 < knee, e1, e2) * end)
        nits = nits * (mapped / np.maximum(largest, 1e-9))[..., None]
    light = np.clip(nits / WHITE @ np.linalg.inv(TO_BT2020).T, 0, 1)
    return np.asarray(light ** (1 / 2.4) * 255)


def deep(samples: Floats) -> NDArray[np.uint16]:
    """[H, W, 3] of 0..1 to [3, H, W] of 16 bits."""
    return np.moveaxis(np.round(np.clip(samples, 0, 1) * 65_535).astype(np.uint16), -1, 0)


def test_the_curves_have_their_published_values() -> None:
    # BT.2408-7, table 1: reference white is 58 % PQ and 75 % HLG, on a display of 1000 cd/m2.
    assert pq_from_nits(np.float64(WHITE)) == pytest.approx(0.58, abs=0.005)
    assert 1000 * scene_from_hlg(np.float64(0.75)) ** 1.2 == pytest.approx(WHITE, abs=1)
    assert nits_from_pq(np.array([0.0, 1.0])).tolist() == pytest.approx([0, 10_000])
    assert scene_from_hlg(np.array([0.0, 0.5, 1.0])).tolist() == pytest.approx([0, 1 / 12, 1], abs=1e-6)


COLORS = np.array(np.meshgrid(*[[0, 40, 128, 200, 255]] * 3), np.uint8).reshape(3, 25, 5).transpose(1, 2, 0)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_sdr_that_was_made_hdr_comes_back(transfer: int) -> None:
    back = to_sdr(deep(made_hdr(COLORS, transfer)), ColorSpace(9, transfer))
    bright = COLORS.max(axis=-1) > 0
    assert np.abs(back.astype(int) - COLORS)[bright].max() <= 6  # the published matrices have four digits
    assert np.abs(back.astype(int) - COLORS).mean() < 0.7


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("brightness", [0.3, 1.0, 2.0, 4.5])
def test_equals_exact_arithmetic(transfer: int, brightness: float) -> None:
    photo = np.asarray(Image.fromarray(skimage.data.astronaut()).resize((200, 160)))
    samples = np.minimum(made_hdr(photo, transfer, brightness=brightness), 1)
    ours = to_sdr(deep(samples), ColorSpace(9, transfer))
    exact = exactly(samples.reshape(-1, 3), transfer).reshape(photo.shape)
    assert np.abs(ours - exact).max() <= 2.5
    assert np.abs(ours - exact).mean() <= 0.35


def test_highlights_keep_their_order_and_hue() -> None:
    nits = np.geomspace(10, 1000, 256)
    orange = pq_from_nits(np.stack([nits, nits * 0.5, nits * 0.25], -1))[None]
    shown = to_sdr(deep(orange), ColorSpace(1, PQ))[0].astype(int)
    assert (np.diff(shown, axis=0) >= 0).all()
    assert shown[-1].tolist() == pytest.approx([255, 255 * 0.5 ** (1 / 2.4), 255 * 0.25 ** (1 / 2.4)], abs=2)
    assert (shown[nits < 40] - 255 * (nits[nits < 40, None] * [1, 0.5, 0.25] / WHITE) ** (1 / 2.4)).max() < 1


@pytest.mark.parametrize("primaries", [4, 5, 6, 7, 8, 9, 11, 12, 22])
def test_white_stays_white_and_gray_gray(primaries: int) -> None:
    grays = np.repeat(np.arange(0, 256, 5, dtype=np.uint16)[None, None] * 257, 3, axis=0)
    shown = to_sdr(grays, ColorSpace(primaries, 1))
    assert np.abs(shown.astype(int) - np.arange(0, 256, 5)[None, :, None]).max() <= 1


def test_wide_colors_of_sdr_follow_the_published_matrix() -> None:
    wide = (COLORS / 255) ** 2.4 @ TO_BT2020.T
    back = to_sdr(deep(np.maximum(wide, 0) ** (1 / 2.4)), ColorSpace(9, 14))
    assert np.abs(back.astype(int) - COLORS).mean() < 0.7


@pytest.mark.parametrize(("primaries", "transfer"), [(1, 1), (2, 2), (1, 13), (1, 6), (2, 14), (0, 0), (200, 99)])
def test_what_is_shown_as_it_is_is_not_converted(primaries: int, transfer: int) -> None:
    assert color_space(primaries, transfer) is None


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_without_primaries_counts_as_bt2020(transfer: int) -> None:
    assert color_space(2, transfer) == ColorSpace(9, transfer)
    assert color_space(1, transfer) == ColorSpace(1, transfer)


CODECS = {
    "HEVC": ("mp4", "libx265", "yuv420p10le", {"x265-params": "log-level=none", "crf": "8"}),
    "AV1": ("mp4", "libsvtav1", "yuv420p10le", {"svtav1-params": "lp=1", "crf": "10"}),
    "VP9": ("webm", "libvpx-vp9", "yuv420p", {"crf": "4", "b": "0"}),
    "H.264": ("matroska", "libx264", "yuv422p10le", {"crf": "6"}),
    "ProRes": ("mov", "prores_ks", "yuv422p10le", {}),
}


def encode_hdr(samples: Floats, codec: str, primaries: int, transfer: int, *, full: bool = False) -> bytes:
    """Four equal frames with code points, in the matrix of BT.2020; samples [H, W, 3] of 0..1."""
    container, encoder, pixel_format, options = CODECS[codec]
    height, width = samples.shape[:2]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(encoder, rate=10, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        context = stream.codec_context
        context.thread_count = 1
        context.color_primaries, context.color_trc, context.colorspace = primaries, transfer, 9
        context.color_range = 2 if full else 1
        planes = deep(samples)[[1, 2, 0]]
        for number in range(4):
            frame = av.VideoFrame(width, height, "gbrp16le")
            for plane, content in zip(frame.planes, planes, strict=True):
                rows = np.zeros((height, plane.line_size // 2), np.uint16)
                rows[:, :width] = content
                plane.update(rows.tobytes())
            frame = frame.reformat(format=pixel_format, dst_colorspace=9, dst_color_range=2 if full else 1)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            frame.color_primaries, frame.color_trc = primaries, transfer
            frame.colorspace, frame.color_range = 9, 2 if full else 1
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def patches() -> Pixels:
    """Plain colors, and black."""
    colors = [
        (255, 255, 255),
        (220, 30, 30),
        (30, 160, 40),
        (40, 60, 220),
        (240, 220, 40),
        (250, 140, 20),
        (90, 90, 90),
    ]
    picture = np.zeros((112, 224, 3), np.uint8)
    for number, color in enumerate(colors):
        picture[number // 4 * 56 : number // 4 * 56 + 56, number % 4 * 56 : number % 4 * 56 + 56] = color
    return picture


def middles(picture: Pixels) -> NDArray[np.int64]:
    return picture[28::56, 28::56].astype(np.int64)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_video_looks_like_its_sdr_twin(codec: str, transfer: int) -> None:
    data = encode_hdr(made_hdr(patches(), transfer), codec, 9, transfer)
    video, frames = sampled(data, msgspec.structs.replace(TINY, max_pixels=224 * 112))
    errors = np.abs(middles(frames[1]) - middles(patches()))
    assert errors.mean() <= 4
    assert errors.max() <= (10 if "10" in CODECS[codec][2] else 32)  # 8 bits are few for the dark samples of PQ
    kind = "PQ" if transfer == PQ else "HLG"
    assert video.notes == (
        f"The colors are HDR ({kind}) and were mapped to SDR by ITU-R BT.2390, 203 cd/m2 being white.",
    )


@pytest.mark.parametrize("codec", ["HEVC", "VP9", "ProRes"])
def test_wide_primaries_alone_are_converted(codec: str) -> None:
    wide = np.maximum((patches() / 255) ** 2.4 @ TO_BT2020.T, 0) ** (1 / 2.4)
    video, frames = sampled(encode_hdr(wide, codec, 9, 14), msgspec.structs.replace(TINY, max_pixels=224 * 112))
    assert np.abs(middles(frames[1]) - middles(patches())).max() <= 8
    assert video.notes == ("The colors were converted from BT.2020 to BT.709.",)


def test_full_range_hdr_is_read() -> None:
    data = encode_hdr(made_hdr(patches(), PQ), "HEVC", 9, PQ, full=True)
    _, frames = sampled(data, msgspec.structs.replace(TINY, max_pixels=224 * 112))
    assert np.abs(middles(frames[1]) - middles(patches())).max() <= 10


@pytest.mark.slow
def test_resizing_comes_close_to_mapping_every_pixel() -> None:
    photo = np.asarray(Image.fromarray(skimage.data.chelsea()).resize((1120, 756)))
    samples = np.minimum(made_hdr(photo, PQ, brightness=2.0), 1)
    data = encode_hdr(samples, "HEVC", 9, PQ)
    video, frames = sampled(data, msgspec.structs.replace(BUDGET, max_pixels=560 * 378, min_pixels=784))
    whole = Image.fromarray(np.round(exactly(samples.reshape(-1, 3), PQ).reshape(photo.shape)).astype(np.uint8))
    expected = np.asarray(whole.resize((video.size.width, video.size.height), Image.Resampling.BICUBIC))
    assert np.abs(frames[1].astype(int) - expected).mean() < 2.5


@pytest.mark.parametrize(("primaries", "transfer", "gamma"), [(1, 8, 1.0), (1, 4, 2.2), (1, 5, 2.8)])
def test_transfer_curves_of_sdr_are_followed(primaries: int, transfer: int, gamma: float) -> None:
    levels = np.array([0.0, 0.02, 0.1, 0.3, 0.6, 1.0])
    shown = to_sdr(deep(np.repeat(levels[None, :, None], 3, -1)), ColorSpace(primaries, transfer))
    assert np.abs(shown[0, :, 0] - levels ** (gamma / 2.4) * 255).max() <= 1
