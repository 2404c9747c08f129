"""Frame counts, indices and times against qwen-vl-utils' public formulas, written down here a second time."""

import math
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_executor.processor.geometry import GeometryError, video_grid, video_size
from server.media.decode.frame_sampling import Sampling, Timeline, make_timeline, sample_frames
from server.media.errors import MediaError
from tests.support.videos import BUDGET

RATES = [Fraction(rate) for rate in (1, 5, 10, 12, 15, 24, 25, 30, 50, 60, 120)]
RATES += [Fraction(24_000, 1001), Fraction(30_000, 1001), Fraction(60_000, 1001)]
TOTALS = [1, 2, 3, 4, 5, 6, 7, 10, 29, 30, 31, 59, 60, 61, 100, 249, 250, 300, 719, 1000, 1799, 5000, 30_000]
TABLE = [(total, rate) for total in TOTALS for rate in RATES]
assert len(TABLE) >= 200
UNLIMITED = msgspec.structs.replace(BUDGET, max_s=1e9)


def reference_count(total: int, rate: float, fps: float = 2.0, low: int = 4, high: int = 768) -> int:
    """qwen-vl-utils' `smart_nframes`; where it returns fewer than 2 it raises, and we take 2."""
    lowest = math.ceil(low / 2) * 2
    highest = math.floor(min(high, total) / 2) * 2
    count = min(min(max(total / rate * fps, lowest), highest), total)
    return max(2, math.floor(count / 2) * 2)


def reference_indices(first: int, last: int, count: int) -> list[int]:
    return [int(index) for index in np.linspace(first, last, count).round()]


def constant(total: int, rate: Fraction) -> Timeline:
    return make_timeline(range(total), 1 / rate, rates=[rate])


@pytest.mark.parametrize(("total", "rate"), TABLE)
def test_constant_rate_is_sampled_as_the_reference_does(total: int, rate: Fraction) -> None:
    sampling = sample_frames(constant(total, rate), UNLIMITED)
    count = reference_count(total, float(rate))
    assert list(sampling.indices) == reference_indices(0, total - 1, count)
    assert sampling.times_s == pytest.approx([index / float(rate) for index in sampling.indices])
    assert sampling.effective_fps == pytest.approx(count / (total / float(rate)))


def reference_size(height: int, width: int, count: int) -> tuple[int, int] | None:
    """qwen-vl-utils' size of a video's frames; None where that would cost more than 16 384 tokens."""
    low, total = 128 * 784, 16_384 * 784
    top = max(min(768 * 784, total / count * 2), int(low * 1.05))
    sides = [max(28, round(side / 28) * 28) for side in (height, width)]
    if math.prod(sides) > top:
        shrink = math.sqrt(height * width / top)
        sides = [max(28, math.floor(side / shrink / 28) * 28) for side in (height, width)]
    elif math.prod(sides) < low:
        grow = math.sqrt(low / (height * width))
        sides = [math.ceil(side * grow / 28) * 28 for side in (height, width)]
    return (sides[0], sides[1]) if math.prod(sides) * count / 2 <= total else None


@pytest.mark.parametrize(
    ("height", "width"), [(1080, 1920), (1920, 1080), (480, 640), (144, 176), (2160, 3840), (720, 720), (64, 2048)]
)
def test_sizes_are_the_references_wherever_those_hold_the_cap(height: int, width: int) -> None:
    num_equal = 0
    for total, rate in TABLE:
        count = len(sample_frames(constant(total, rate), UNLIMITED).indices)
        size = video_size(height, width, count)
        assert video_grid(size, count).num_tokens <= 16_384
        # Past 136 seconds the reference's lower limit is above what the cap leaves, and ours gives way.
        if 16_384 * 784 * 2 / count >= 128 * 784 * 1.05 and (expected := reference_size(height, width, count)):
            assert (size.height, size.width) == expected
            num_equal += 1
    assert num_equal >= 200


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(24_000, 1001), Fraction(30_000, 1001), Fraction(60)])
@pytest.mark.parametrize("total", [48, 240, 719, 3000])
def test_millisecond_timestamps_do_not_change_what_is_sampled(total: int, rate: Fraction) -> None:
    rounded = [round(index * 1000 / rate) for index in range(total)]
    for rates in ([rate], [], [Fraction(1000), rate]):
        assert sample_frames(make_timeline(rounded, Fraction(1, 1000), rates=rates), BUDGET) == sample_frames(
            constant(total, rate), BUDGET
        )


@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 3.0), (1.5, 4.0), (2.0, None), (None, 5.01), (3.0, 3.01)])
def test_window_includes_both_ends_as_the_reference_does(start_s: float | None, end_s: float | None) -> None:
    total, rate = 250, 25
    first = 0 if start_s is None else math.ceil(start_s * rate)
    last = total - 1 if end_s is None else math.floor(min(end_s, total / rate) * rate)
    budget = msgspec.structs.replace(BUDGET, video_start=start_s, video_end=end_s)
    count = reference_count(last - first + 1, rate)
    assert list(sample_frames(constant(total, Fraction(rate)), budget).indices) == reference_indices(first, last, count)


def test_window_without_a_frame_is_rejected() -> None:
    line = constant(250, Fraction(25))
    for start_s, end_s in ((10.0, 12.0), (3.01, 3.03)):
        with pytest.raises(MediaError, match="There is no frame between"):
            sample_frames(line, msgspec.structs.replace(BUDGET, video_start=start_s, video_end=end_s))


def test_freeze_frame_is_visible_until_the_next_one() -> None:
    ticks = [*range(0, 1000, 40), 20_000]
    sampling = sample_frames(make_timeline(ticks, Fraction(1, 1000), rates=[]), BUDGET)
    moments_s = np.linspace(0, 20, len(sampling.indices))
    assert len(sampling.indices) == 26
    assert sampling.indices[0] == 0
    assert [index for index, at_s in zip(sampling.indices, moments_s, strict=True) if 0.98 < at_s < 19.9] == [24] * 23
    assert sampling.indices[-1] == 25


@given(st.lists(st.integers(1, 500), min_size=1, max_size=300), st.floats(0.1, 30))
@settings(max_examples=200, deadline=None)
def test_variable_rate_samples_what_is_visible(gaps_ms: list[int], fps: float) -> None:
    ticks = [0, *(int(tick) for tick in np.cumsum(gaps_ms))]
    line = make_timeline(ticks, Fraction(1, 1000), rates=[Fraction(1000), Fraction(7, 3)])
    sampling = sample_frames(line, msgspec.structs.replace(BUDGET, fps=fps))
    check_sampling(sampling, len(ticks))
    if line.rate is None:
        half_s = float(np.median(np.diff(line.times_s))) / 2
        moments_s = np.linspace(line.times_s[0], line.times_s[-1], len(sampling.indices))
        for index, at_s in zip(sampling.indices, moments_s, strict=True):
            assert line.times_s[index] <= at_s + half_s + 1e-9
            if index + 1 < len(ticks):
                assert at_s < line.times_s[index + 1]


@given(st.integers(1, 20_000), st.fractions(Fraction(1, 10), 240), st.floats(0.01, 1000), st.data())
@settings(max_examples=200, deadline=None)
def test_any_constant_rate_and_wish_gives_a_valid_sampling(
    total: int, rate: Fraction, fps: float, data: st.DataObject
) -> None:
    low = data.draw(st.integers(1, 2000))
    high = data.draw(st.integers(max(2, low), 5000))
    budget = msgspec.structs.replace(BUDGET, fps=fps, min_frames=low, max_frames=high, max_s=1e9)
    line = constant(total, rate)
    sampling = sample_frames(line, budget)
    check_sampling(sampling, total)
    assert sampling.indices[0] == 0
    assert sampling.indices[-1] == total - 1
    if line.rate is not None:
        count = reference_count(total, float(line.rate), fps, low, min(high, 768))
        # Where the wanted number is a whole one, the reference's rounded rate may fall to either side of it.
        assert abs(len(sampling.indices) - count) <= (0 if (total / line.rate * Fraction(fps)) % 2 > 1e-6 else 2)


def check_sampling(sampling: Sampling, total: int) -> None:
    indices = sampling.indices
    assert len(indices) % 2 == 0
    assert 2 <= len(indices) <= 768
    assert len(indices) <= max(2, total)
    assert list(indices) == sorted(indices)
    assert 0 <= indices[0] <= indices[-1] < total
    assert len(sampling.times_s) == len(indices)


@pytest.mark.slow
def test_tokens_stay_within_the_cap_for_ten_thousand_random_clips() -> None:
    random = np.random.default_rng(0)
    for _ in range(10_000):
        duration_s = float(10 ** random.uniform(-2, 4.1))
        rate = Fraction(int(random.integers(1, 121)))
        total = max(1, int(duration_s * rate))
        height, width = (int(10 ** random.uniform(0, 4.3)) for _ in range(2))
        frames = len(sample_frames(Timeline(np.arange(total) / float(rate), rate, 0.0), BUDGET).indices)
        wishes = {
            "min_pixels": int(10 ** random.uniform(0, 9)),
            "max_pixels": int(10 ** random.uniform(0, 9)),
            "total_pixels": int(10 ** random.uniform(0, 10)),
        }
        try:
            size = video_size(height, width, frames, **wishes)
        except GeometryError:
            assert max(height, width) > 200 * min(height, width)
            continue
        assert video_grid(size, frames).num_tokens <= 16_384


def test_lowered_rate_has_a_note() -> None:
    hour = sample_frames(constant(3600 * 25, Fraction(25)), BUDGET)
    assert len(hour.indices) == 768
    assert hour.effective_fps == pytest.approx(768 / 3600)
    assert hour.notes == ("At most 768 frames are sampled: 0.213 a second, not 2.",)
    assert sample_frames(constant(384 * 25, Fraction(25)), BUDGET).notes == ()


def test_video_above_the_time_limit_is_rejected_with_numbers() -> None:
    with pytest.raises(MediaError, match=r"lasts 3600\.0 s; the limit is 60 s \(media\.max_video_s\)"):
        sample_frames(constant(3600, Fraction(1)), msgspec.structs.replace(BUDGET, max_s=60))


def test_single_frame_without_any_duration_is_used_twice() -> None:
    sampling = sample_frames(make_timeline([17], Fraction(1, 1000), rates=[]), BUDGET)
    assert sampling == Sampling((0, 0), (0.0, 0.0), None, ())
