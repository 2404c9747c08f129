"""Sizes, frame counts and token counts against the published formulas, written here a second time."""

import math
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model_executor.processor.geometry import (
    GeometryError,
    Grid,
    Size,
    fit,
    image_grid,
    num_video_frames,
    smart_resize,
    video_grid,
    video_size,
)

SIDES = st.integers(1, 20_000)


def published_resize(h: int, w: int, low: int, top: int) -> tuple[int, int]:
    """qwen-vl-utils' formula, in rational arithmetic where it is exact."""
    hb = max(28, round(Fraction(h, 28)) * 28)
    wb = max(28, round(Fraction(w, 28)) * 28)
    if hb * wb > top:
        b = math.sqrt((h * w) / top)
        hb, wb = max(28, math.floor(h / b / 28) * 28), max(28, math.floor(w / b / 28) * 28)
    elif hb * wb < low:
        b = math.sqrt(low / (h * w))
        hb, wb = math.ceil(h * b / 28) * 28, math.ceil(w * b / 28) * 28
    return hb, wb


def published_frames(total: int, rate: float, fps: float = 2.0) -> int:
    """qwen-vl-utils' `smart_nframes` with its defaults."""
    most = min(768, total) // 2 * 2
    count = min(min(max(total / rate * fps, 4), most), total)
    return math.floor(count / 2) * 2


@pytest.mark.parametrize(
    ("height", "width", "tokens"),
    [
        (224, 224, 64),
        (28, 28, 4),
        (1, 1, 4),
        (70, 70, 4),
        (42, 42, 4),
        (14, 14, 4),
        (13, 100, 4),
        (56, 56, 4),
        (84, 84, 9),
        (98, 98, 16),
        (100, 100, 16),
        (300, 200, 77),
        (336, 504, 216),
        (480, 640, 391),
        (640, 480, 391),
        (512, 512, 324),
        (720, 1280, 1196),
        (1080, 1920, 2691),
        (960, 1280, 1564),
        (952, 1288, 1564),
        (3000, 4000, 15_301),
        (4000, 6000, 16_224),
        (28, 5600, 200),
        (5600, 28, 200),
    ],
)
def test_a_picture_costs_what_the_table_says(height: int, width: int, tokens: int) -> None:
    size = smart_resize(height, width, min_pixels=3136, max_pixels=12_845_056)
    assert image_grid(size).num_tokens == tokens


@given(SIDES, SIDES, st.integers(784, 20_000), st.integers(20_000, 12_845_056))
def test_resize_equals_the_published_formula(height: int, width: int, low: int, top: int) -> None:
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(GeometryError, match="aspect ratio"):
            smart_resize(height, width, min_pixels=low, max_pixels=top)
    else:
        size = smart_resize(height, width, min_pixels=low, max_pixels=top)
        assert (size.height, size.width) == published_resize(height, width, low, top)


def test_ratio_200_is_taken_and_201_refused() -> None:
    assert smart_resize(2000, 10, min_pixels=3136, max_pixels=12_845_056) == Size(1988, 28)
    with pytest.raises(GeometryError, match="200"):
        smart_resize(2010, 10, min_pixels=3136, max_pixels=12_845_056)


def test_refuses_an_empty_image() -> None:
    with pytest.raises(GeometryError, match="is empty"):
        smart_resize(0, 10, min_pixels=3136, max_pixels=12_845_056)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 100_000), st.integers(0, 100_000))
@example(2, 2, 785, 785)
@example(400, 2, 5000, 5000)
def test_fit_never_exceeds_its_upper_limit(height: int, width: int, low: int, top: int) -> None:
    if max(height, width) <= 200 * min(height, width):
        size = fit(height, width, min_pixels=low, max_pixels=top)
        assert size.height * size.width <= max(top, 784)
        assert size.height % 28 == size.width % 28 == 0


@pytest.mark.parametrize("rate", [1, 5, 10, 12.5, 15, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60, 120])
@pytest.mark.parametrize("total", [2, 3, 4, 5, 7, 8, 29, 30, 31, 59, 60, 61, 100, 299, 900, 1799, 23_000, 100_000])
def test_frame_count_equals_the_published_formula(total: int, rate: float) -> None:
    assert num_video_frames(total, total / rate) == published_frames(total, rate)


def test_a_clip_of_one_frame_or_no_duration_gives_frames_all_the_same() -> None:
    assert num_video_frames(1, 0.04) == 2
    assert num_video_frames(1, 0) == 2
    assert num_video_frames(10, 0) == 4


@given(
    st.integers(1, 1_000_000),
    st.floats(0, 1e6),
    st.floats(0.001, 1000),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
)
def test_frame_count_is_even_and_bounded(total: int, duration: float, fps: float, least: int, most: int) -> None:
    count = num_video_frames(total, duration, fps=fps, min_frames=least, max_frames=most)
    assert count % 2 == 0
    assert 2 <= count <= 768
    assert count <= max(total, 2)


@pytest.mark.parametrize(
    ("num_frames", "size", "tokens"),
    [
        (60, Size(476, 868), 15_810),
        (120, Size(336, 616), 15_840),
        (600, Size(140, 252), 13_500),
        (768, Size(112, 224), 12_288),
    ],
)
def test_a_widescreen_clip_gets_the_stated_size(num_frames: int, size: Size, tokens: int) -> None:
    assert video_size(1080, 1920, num_frames) == size
    assert video_grid(size, num_frames).num_tokens == tokens


ANY_CLIP = given(
    SIDES, SIDES, st.integers(1, 384), st.integers(-10, 10**9), st.integers(-10, 10**9), st.integers(-10, 10**12)
)


def within_the_cap(h: int, w: int, slices: int, low: int, top: int, total: int) -> None:
    if max(h, w) > 200 * min(h, w):
        return
    size = video_size(h, w, 2 * slices, min_pixels=low, max_pixels=top, total_pixels=total)
    grid = video_grid(size, 2 * slices)
    assert grid.num_tokens <= 16_384
    assert min(size.height, size.width) >= 28


@ANY_CLIP
def test_no_clip_costs_more_than_the_cap(h: int, w: int, slices: int, low: int, top: int, total: int) -> None:
    within_the_cap(h, w, slices, low, top, total)


@pytest.mark.slow
@settings(max_examples=10_000)
@ANY_CLIP
def test_no_clip_ever_costs_more_than_the_cap(h: int, w: int, slices: int, low: int, top: int, total: int) -> None:
    within_the_cap(h, w, slices, low, top, total)


@given(st.integers(56, 4000), st.integers(56, 4000), st.integers(1, 136))
def test_clip_sizes_equal_the_published_formula_while_it_holds_the_cap(h: int, w: int, slices: int) -> None:
    if max(h, w) > 50 * min(h, w):
        return
    n = 2 * slices
    top = max(min(768 * 784, 16_384 * 784 / n * 2), int(128 * 784 * 1.05))
    expected = published_resize(h, w, 128 * 784, int(top))
    if expected[0] * expected[1] * slices <= 16_384 * 784 and slices <= 121:
        size = video_size(h, w, n)
        assert (size.height, size.width) == expected


def test_a_grid_counts_patches_and_tokens() -> None:
    assert Grid(3, 4, 6).num_patches == 72
    assert Grid(3, 4, 6).num_tokens == 18
