"""The limits of clients: clamped by the server's, and rejected by name where they contradict each other."""

from typing import Any

import pytest

from server.core.settings import MediaSettings
from server.media.budget import CheckpointLimits, image_budget, video_budget
from server.media.errors import MediaError
from server.media.types import MediaLimits, MediaPart

CHECKPOINT = CheckpointLimits(
    image_min_pixels=3136, image_max_pixels=1_000_000, video_min_pixels=100_352, video_max_pixels=400_000
)
SETTINGS = MediaSettings(max_image_pixels=2_000_000, max_video_tokens=8000, max_video_frames=600)


def image_part(**limits: Any) -> MediaPart:
    return MediaPart("image", "data:", "messages[0].content[1].image_url", MediaLimits(**limits))


def video_part(source: str | tuple[str, ...] = "data:", **limits: Any) -> MediaPart:
    return MediaPart("video", source, "messages[0].content[1].video_url", MediaLimits(**limits))


def test_defaults_are_the_smaller_of_server_and_checkpoint() -> None:
    image = image_budget(image_part(), SETTINGS, CHECKPOINT)
    assert (image.min_pixels, image.max_pixels, image.resized) == (3136, 1_000_000, None)
    assert image_budget(image_part(), MediaSettings(max_image_pixels=784), CHECKPOINT).max_pixels == 784
    video = video_budget(video_part(), SETTINGS, CHECKPOINT)
    assert (video.fps, video.min_frames, video.max_frames) == (2.0, 4, 600)
    assert (video.min_pixels, video.max_pixels, video.total_pixels) == (100_352, 400_000, 8000 * 784)


def test_limits_of_clients_above_the_limits_are_clamped() -> None:
    image = image_budget(image_part(min_pixels=5_000_000, max_pixels=9_000_000), SETTINGS, CHECKPOINT)
    assert (image.min_pixels, image.max_pixels) == (1_000_000, 1_000_000)
    video = video_budget(video_part(max_frames=5000, total_pixels=10**9), SETTINGS, CHECKPOINT)
    assert (video.max_frames, video.total_pixels) == (600, 8000 * 784)


def test_limits_of_clients_within_the_limits_are_followed() -> None:
    image = image_budget(image_part(max_pixels=64 * 784, resized_height=280, resized_width=560), SETTINGS, CHECKPOINT)
    assert (image.max_pixels, image.resized) == (64 * 784, (280, 560))
    video = video_budget(
        video_part(fps=0.5, min_frames=2, max_pixels=784, video_start=1.0, video_end=2.0), SETTINGS, CHECKPOINT
    )
    assert (video.fps, video.min_frames, video.max_pixels) == (0.5, 2, 784)
    assert (video.video_start, video.video_end) == (1.0, 2.0)


def test_defaults_of_videos_are_settings() -> None:
    settings = MediaSettings(video_fps=0.5, video_min_frames=8, max_video_pixels=78_400)
    video = video_budget(video_part(), settings, CHECKPOINT)
    assert (video.fps, video.min_frames, video.max_pixels) == (0.5, 8, 78_400)
    requested = video_budget(video_part(fps=3.0, min_frames=2, max_pixels=10**6), settings, CHECKPOINT)
    assert (requested.fps, requested.min_frames, requested.max_pixels) == (3.0, 2, 78_400)


def test_few_tokens_allow_few_frames() -> None:
    assert video_budget(video_part(), MediaSettings(max_video_tokens=5), CHECKPOINT).max_frames == 10


CONTRADICTIONS: list[dict[str, Any]] = [
    {"min_pixels": 5000, "max_pixels": 4000},
    {"resized_height": 280},
    {"resized_width": 280},
]
VIDEO_CONTRADICTIONS: list[dict[str, Any]] = [
    {"min_frames": 10, "max_frames": 8},
    {"video_start": 5.0, "video_end": 5.0},
    {"video_start": 6.0, "video_end": 5.0},
]


@pytest.mark.parametrize("limits", CONTRADICTIONS + VIDEO_CONTRADICTIONS, ids=str)
def test_limits_that_contradict_each_other_are_rejected_by_name(limits: dict[str, Any]) -> None:
    [name, *_] = limits
    with pytest.raises(MediaError, match=f"'{name}'") as caught:
        video_budget(video_part(**limits), SETTINGS, CHECKPOINT)
    assert (caught.value.code, caught.value.limit) == ("invalid_value", name)
    if limits in CONTRADICTIONS:
        with pytest.raises(MediaError, match=f"'{name}'"):
            image_budget(image_part(**limits), SETTINGS, CHECKPOINT)


@pytest.mark.parametrize("name", ["fps", "min_frames", "max_frames", "total_pixels", "video_start", "video_end"])
def test_limits_of_videos_are_rejected_on_images(name: str) -> None:
    with pytest.raises(MediaError, match=f"'{name}' applies to videos only") as caught:
        image_budget(image_part(**{name: 4}), SETTINGS, CHECKPOINT)
    assert (caught.value.code, caught.value.limit) == ("invalid_value", name)


@pytest.mark.parametrize("name", ["min_frames", "max_frames", "video_start", "video_end"])
def test_limits_that_choose_frames_are_rejected_on_lists_of_frames(name: str) -> None:
    with pytest.raises(MediaError, match="cannot be combined with a list of frames") as caught:
        video_budget(video_part(("data:",), **{name: 4}), SETTINGS, CHECKPOINT)
    assert (caught.value.code, caught.value.limit) == ("invalid_value", name)


def test_lists_of_frames_have_a_limit() -> None:
    with pytest.raises(MediaError, match="has 601 frames; the limit is 600") as caught:
        video_budget(video_part(("data:",) * 601), SETTINGS, CHECKPOINT)
    assert (caught.value.code, caught.value.limit) == ("media_too_long", None)
    assert video_budget(video_part(("data:",) * 600, fps=5.0), SETTINGS, CHECKPOINT).fps == 5.0


@pytest.mark.parametrize(("requested", "sampled"), [(2, 2), (3, 4), (5, 4), (16, 16), (17, 16)])
def test_a_number_of_frames_is_rounded_as_qwen_vl_utils_rounds_it(requested: int, sampled: int) -> None:
    budget = video_budget(video_part(nframes=requested), SETTINGS, CHECKPOINT)
    assert (budget.min_frames, budget.max_frames) == (sampled, sampled)


@pytest.mark.parametrize("other", [{"fps": 1.0}, {"min_frames": 2}, {"max_frames": 8}])
def test_a_number_of_frames_excludes_other_ways_to_say_it(other: dict[str, Any]) -> None:
    with pytest.raises(MediaError) as caught:
        video_budget(video_part(nframes=4, **other), SETTINGS, CHECKPOINT)
    assert caught.value.limit == "nframes"
