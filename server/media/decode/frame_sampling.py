"""Chooses the frames of a video that the model sees, from presentation times alone. Pure.

A video of constant rate is sampled by frame number, so that counts and indices equal qwen-vl-utils'; any other by
presentation time: the frame visible at each of n evenly spaced moments.

Source: qwen-vl-utils `smart_nframes` and `linspace(first, last, n).round()`. As n is even, n - 1 is odd and no value
is ever halfway between two frames, so exact integers decide what floating point only approximates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from model_executor.processor.geometry import num_video_frames
from server.media.errors import MediaError
from server.media.messages import VideoBudget

TIMESTAMP_JITTER_S = 1e-3
"""Containers that count in milliseconds round times by this much; files made from them keep the error."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Presentation times of a video's frames."""

    times_s: NDArray[np.float64]
    """[F], rising, the first is 0."""
    rate: Fraction | None
    """Frames per second where constant."""
    last_frame_s: float
    """How long the last frame is visible; 0 where unknown."""

    @property
    def duration_s(self) -> float:
        """From the first frame to the end of the last."""
        return self.span_s(0, len(self.times_s) - 1)

    def span_s(self, first: int, last: int) -> float:
        """From the start of frame `first` to the end of frame `last`."""
        if self.rate is not None:
            return float((last - first + 1) / self.rate)
        visible_s = self.last_frame_s if last == len(self.times_s) - 1 else self.times_s[last + 1] - self.times_s[last]
        return float(self.times_s[last] - self.times_s[first] + visible_s)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Frames of a timeline the model sees."""

    indices: tuple[int, ...]
    """Frame numbers, never falling, an even count; a frame of long duration may repeat."""
    times_s: tuple[float, ...]
    """Presentation time of each."""
    effective_fps: float | None
    """Sampled frames per second; None where the video has no duration."""
    notes: tuple[str, ...]


def make_timeline(
    ticks: Sequence[int], tick_s: Fraction, *, rates: Sequence[Fraction], last_frame_ticks: int = 0
) -> Timeline:
    """A timeline from the timestamps of a container.

    Args:
        ticks: presentation times, strictly rising, at least one.
        tick_s: seconds per tick.
        rates: frame rates the container claims, best first; used only where the timestamps agree.
        last_frame_ticks: how long the last frame is visible; 0 where unknown.
    """
    times_s = (np.asarray(ticks, dtype=np.float64) - float(ticks[0])) * float(tick_s)
    last_frame_s = float(last_frame_ticks * tick_s)
    rate = _constant_rate(times_s, float(tick_s), rates)
    if rate is not None:
        return Timeline(np.arange(len(times_s)) / float(rate), rate, float(1 / rate))
    if last_frame_s <= 0 and len(times_s) > 1:
        last_frame_s = float(np.median(np.diff(times_s)))
    return Timeline(times_s, None, last_frame_s)


def sample_frames(timeline: Timeline, budget: VideoBudget) -> Sampling:
    """Choose frames.

    Raises:
        MediaError: longer than the limit, or no frame between `video_start` and `video_end`.
    """
    if timeline.duration_s > budget.max_s:
        raise too_long_error(timeline.duration_s, budget.max_s)
    first, last = _window(timeline, budget.video_start, budget.video_end)
    duration_s = timeline.span_s(first, last)
    num_frames = num_video_frames(
        last - first + 1, duration_s, fps=budget.fps, min_frames=budget.min_frames, max_frames=budget.max_frames
    )
    indices = _spread_indices(timeline, first, last, num_frames)
    effective_fps = num_frames / duration_s if duration_s > 0 else None
    notes: tuple[str, ...] = ()
    if effective_fps is not None and int(duration_s * budget.fps) // 2 * 2 > num_frames == budget.max_frames // 2 * 2:
        notes = (f"At most {budget.max_frames} frames are sampled: {effective_fps:.3g} a second, not {budget.fps:g}.",)
    return Sampling(indices, tuple(float(timeline.times_s[index]) for index in indices), effective_fps, notes)


def too_long_error(duration_s: float, max_s: float) -> MediaError:
    """The error of a video above the limit."""
    return MediaError(
        "media_too_long", f"The video lasts {duration_s:.1f} s; the limit is {max_s:g} s (media.max_video_s)."
    )


def _window(timeline: Timeline, start_s: float | None, end_s: float | None) -> tuple[int, int]:
    """First and last frame with a presentation time from `start_s` to `end_s`, both included."""
    slack_s, times_s = 1e-6, timeline.times_s
    low = 0 if start_s is None else int(np.searchsorted(times_s, start_s - slack_s))
    high = len(times_s) if end_s is None else int(np.searchsorted(times_s, end_s + slack_s, side="right"))
    if low >= high:
        raise MediaError(
            "invalid_value",
            f"There is no frame between video_start and video_end (duration {timeline.duration_s:.3f} s).",
            limit="video_end" if start_s is None else "video_start",
        )
    return low, high - 1


def _spread_indices(timeline: Timeline, first: int, last: int, num_frames: int) -> tuple[int, ...]:
    """`num_frames` frame numbers from `first` to `last`, evenly spaced in time."""
    steps = num_frames - 1
    if timeline.rate is not None:
        # round(first + i * (last - first) / steps), exactly.
        return tuple(first + (2 * i * (last - first) + steps) // (2 * steps) for i in range(num_frames))
    times_s = timeline.times_s[first : last + 1]
    moments_s = np.linspace(times_s[0], times_s[-1], num_frames)
    visible = np.searchsorted(times_s, moments_s, side="right") - 1
    # The next frame where it is nearer and about to become visible: this gives the nearest frame where the rate is
    # nearly constant, and uses a frame of long duration to its end.
    following = np.minimum(visible + 1, len(times_s) - 1)
    wait_s = times_s[following] - moments_s
    soon_s = float(np.median(np.diff(times_s))) / 2 if len(times_s) > 1 else 0.0
    is_next = (wait_s <= soon_s) & (wait_s < moments_s - times_s[visible])
    return tuple(first + int(index) for index in np.where(is_next, following, visible))


def _constant_rate(times_s: NDArray[np.float64], tick_s: float, rates: Sequence[Fraction]) -> Fraction | None:
    """The rate that all timestamps agree with, up to their rounding; None where there is none."""
    claimed = [rate for rate in rates if rate > 0]
    if len(times_s) == 1:
        return claimed[0] if claimed else None
    measured = Fraction((len(times_s) - 1) / float(times_s[-1])).limit_denominator(1001)
    whole = Fraction(round(measured))
    ntsc = Fraction(round(measured * 1001 / 1000) * 1000, 1001)
    numbers = np.arange(len(times_s))
    for rate in (*claimed, whole, ntsc, measured):
        if rate <= 0:
            continue
        allowed_s = min(max(tick_s, TIMESTAMP_JITTER_S) * 1.01, 0.4 / float(rate))
        if np.abs(times_s - numbers / float(rate)).max() <= allowed_s:
            return rate
    return None
