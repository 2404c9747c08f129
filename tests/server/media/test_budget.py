"""Clients' wishes: nonsense refused by name, sensible ones clamped."""

import math
from typing import Any

import pytest

from server.core.errors import BadRequestError
from server.core.settings import MediaSettings
from server.media.budget import CheckpointLimits, clip_budget, image_budget
from server.media.types import MediaPart, PixelLimits

CHECKPOINT = CheckpointLimits(
    image_min_pixels=3136, image_max_pixels=1_000_000, video_min_pixels=100_352, video_max_pixels=400_000
)
SETTINGS = MediaSettings(max_image_pixels=2_000_000, max_video_tokens=8000, max_video_frames=600)


def image_part(**limits: Any) -> MediaPart:
    return MediaPart("image", "data:", "messages[0].content[1].image_url", PixelLimits(**limits))


def clip_part(source: str | tuple[str, ...] = "data:", **limits: Any) -> MediaPart:
    return MediaPart("video", source, "messages[0].content[1].video_url", PixelLimits(**limits))


def test_defaults_are_the_smaller_of_server_and_checkpoint() -> None:
    image = image_budget(image_part(), SETTINGS, CHECKPOINT)
    assert (image.min_pixels, image.max_pixels, image.resized) == (3136, 1_000_000, None)
    assert image_budget(image_part(), MediaSettings(max_image_pixels=784), CHECKPOINT).max_pixels == 784
    clip = clip_budget(clip_part(), SETTINGS, CHECKPOINT)
    assert (clip.fps, clip.min_frames, clip.max_frames) == (2.0, 4, 600)
    assert (clip.min_pixels, clip.max_pixels, clip.total_pixels) == (100_352, 400_000, 8000 * 784)


def test_wishes_above_the_limits_are_clamped() -> None:
    image = image_budget(image_part(min_pixels=5_000_000, max_pixels=9_000_000), SETTINGS, CHECKPOINT)
    assert (image.min_pixels, image.max_pixels) == (1_000_000, 1_000_000)
    clip = clip_budget(clip_part(max_frames=5000, total_pixels=10**9), SETTINGS, CHECKPOINT)
    assert (clip.max_frames, clip.total_pixels) == (600, 8000 * 784)


def test_wishes_within_the_limits_are_followed() -> None:
    image = image_budget(image_part(max_pixels=64 * 784, resized_height=280, resized_width=560), SETTINGS, CHECKPOINT)
    assert (image.max_pixels, image.resized) == (64 * 784, (280, 560))
    clip = clip_budget(
        clip_part(fps=0.5, min_frames=2, max_pixels=784, video_start_s=1.0, video_end_s=2.0), SETTINGS, CHECKPOINT
    )
    assert (clip.fps, clip.min_frames, clip.max_pixels) == (0.5, 2, 784)
    assert (clip.start_s, clip.end_s) == (1.0, 2.0)


def test_defaults_of_clips_are_settings() -> None:
    settings = MediaSettings(video_fps=0.5, video_min_frames=8, max_video_pixels=78_400)
    clip = clip_budget(clip_part(), settings, CHECKPOINT)
    assert (clip.fps, clip.min_frames, clip.max_pixels) == (0.5, 8, 78_400)
    asked = clip_budget(clip_part(fps=3.0, min_frames=2, max_pixels=10**6), settings, CHECKPOINT)
    assert (asked.fps, asked.min_frames, asked.max_pixels) == (3.0, 2, 78_400)


def test_few_tokens_allow_few_frames() -> None:
    assert clip_budget(clip_part(), MediaSettings(max_video_tokens=5), CHECKPOINT).max_frames == 10


NONSENSE: list[dict[str, Any]] = [
    {"min_pixels": -1},
    {"min_pixels": 0},
    {"max_pixels": 0},
    {"max_pixels": 2**31},
    {"max_pixels": 10**40},
    {"min_pixels": 5000, "max_pixels": 4000},
    {"resized_height": 280},
    {"resized_width": 280},
    {"resized_height": 20, "resized_width": 280},
    {"resized_height": -280, "resized_width": 280},
]
CLIP_NONSENSE: list[dict[str, Any]] = [
    {"fps": 0.0},
    {"fps": -1.0},
    {"fps": 1001.0},
    {"fps": math.inf},
    {"fps": math.nan},
    {"min_frames": 0},
    {"max_frames": 1},
    {"min_frames": 10, "max_frames": 8},
    {"total_pixels": -5},
    {"video_start_s": -1.0},
    {"video_start_s": math.nan},
    {"video_start_s": 5.0, "video_end_s": 5.0},
    {"video_start_s": 6.0, "video_end_s": 5.0},
]


@pytest.mark.parametrize("limits", NONSENSE + CLIP_NONSENSE, ids=str)
def test_nonsense_is_refused_by_name(limits: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as caught:
        clip_budget(clip_part(**limits), SETTINGS, CHECKPOINT)
    assert caught.value.param == "messages[0].content[1].video_url"
    assert next(iter(limits)).removesuffix("_s") in caught.value.message
    if limits in NONSENSE:
        with pytest.raises(BadRequestError):
            image_budget(image_part(**limits), SETTINGS, CHECKPOINT)


@pytest.mark.parametrize("name", ["fps", "min_frames", "max_frames", "total_pixels", "video_start_s", "video_end_s"])
def test_fields_of_clips_are_refused_on_pictures(name: str) -> None:
    with pytest.raises(BadRequestError, match=f"{name.removesuffix('_s')} is for videos"):
        image_budget(image_part(**{name: 4}), SETTINGS, CHECKPOINT)


@pytest.mark.parametrize("name", ["min_frames", "max_frames", "video_start_s", "video_end_s"])
def test_fields_that_choose_frames_are_refused_on_lists_of_frames(name: str) -> None:
    with pytest.raises(BadRequestError, match="does not apply to a list of frames"):
        clip_budget(clip_part(("data:",), **{name: 4}), SETTINGS, CHECKPOINT)


def test_lists_of_frames_have_bounds() -> None:
    with pytest.raises(BadRequestError, match="at least one"):
        clip_budget(clip_part(()), SETTINGS, CHECKPOINT)
    with pytest.raises(BadRequestError, match="has 601 frames; at most 600"):
        clip_budget(clip_part(("data:",) * 601), SETTINGS, CHECKPOINT)
    assert clip_budget(clip_part(("data:",) * 600, fps=5.0), SETTINGS, CHECKPOINT).fps == 5.0
