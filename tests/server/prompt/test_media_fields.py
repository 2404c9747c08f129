"""Limits of all media of a request: what they become for each part, which wins, and what becomes of them in a chat."""

from typing import Any

import pytest

from server.core.errors import BadRequestError
from server.media.types import MediaLimits, MediaPart
from server.prompt.media_fields import MediaFields
from tests.support.error_body import check_error
from tests.support.world import ServerFixture

URL = "data:image/png;base64,AA=="
FRAMES = ("a", "b")


def limits(part: MediaPart, **fields: Any) -> dict[str, Any]:
    """What the fields make of one part, without what stays open."""
    (limited,) = MediaFields.model_validate(fields).limited([part])
    values = {name: getattr(limited.limits, name) for name in MediaLimits.__dataclass_fields__}
    return {name: value for name, value in values.items() if value is not None}


def image(**own: Any) -> MediaPart:
    return MediaPart("image", URL, "messages[0].content[0].image_url", MediaLimits(**own))


def video(source: str | tuple[str, ...] = "a.mp4", **own: Any) -> MediaPart:
    return MediaPart("video", source, "messages[0].content[0].video_url", MediaLimits(**own))


@pytest.mark.parametrize(
    ("part", "kwargs", "becomes"),
    [
        (image(), {"min_pixels": 3136, "max_pixels": 9000, "fps": 2.0}, {"min_pixels": 3136, "max_pixels": 9000}),
        (image(max_pixels=784), {"max_pixels": 9000}, {"max_pixels": 784}),
        (image(), {"size": {"shortest_edge": 784, "longest_edge": 3136}}, {"min_pixels": 784, "max_pixels": 3136}),
        (image(), {"size": {"longest_edge": 3136}, "max_pixels": 784}, {"max_pixels": 784}),
        (video(), {"max_pixels": 9000, "fps": 0.5}, {"max_pixels": 9000, "fps": 0.5}),
        (video(), {"fps": [0.5]}, {"fps": 0.5}),
        (video(fps=4.0), {"fps": 0.5}, {"fps": 4.0}),
        (video(nframes=8), {"fps": 0.5}, {"nframes": 8}),
        (video(FRAMES), {"fps": 0.5}, {"fps": 0.5}),
    ],
)
def test_limits_of_the_processor(part: MediaPart, kwargs: dict[str, Any], becomes: dict[str, Any]) -> None:
    assert limits(part, mm_processor_kwargs=kwargs) == becomes


@pytest.mark.parametrize(
    ("part", "kwargs", "becomes"),
    [
        (video(), {"num_frames": 16}, {"nframes": 16}),
        (video(), {"num_frames": 1}, {"nframes": 2}),
        (video(), {"num_frames": -1}, {"nframes": 768}),
        (video(), {"num_frames": -1, "fps": 1.0}, {"fps": 1.0}),
        (video(), {"num_frames": 16, "fps": 1.0}, {"max_frames": 16, "fps": 1.0}),
        (video(max_frames=4), {"num_frames": 16, "fps": 1.0}, {"max_frames": 4}),
        (video(FRAMES), {"num_frames": 16}, {}),
        (image(), {"num_frames": 16, "fps": 1.0}, {}),
    ],
)
def test_limits_of_the_reader(part: MediaPart, kwargs: dict[str, Any], becomes: dict[str, Any]) -> None:
    assert limits(part, media_io_kwargs={"video": kwargs}) == becomes


def test_the_reader_chooses_frames_before_the_processor() -> None:
    kwargs = {"mm_processor_kwargs": {"fps": 4.0}, "media_io_kwargs": {"video": {"fps": 1.0}}}
    assert limits(video(), **kwargs) == {"fps": 1.0}


def test_a_list_of_rates_has_one_for_each_video() -> None:
    fields = MediaFields.model_validate({"mm_processor_kwargs": {"fps": [1.0, 2.0]}})
    parts = fields.limited([video(), image(), video()])
    assert [part.limits.fps for part in parts] == [1.0, None, 2.0]
    with pytest.raises(BadRequestError) as caught:
        fields.limited([video()])
    assert caught.value.param == "mm_processor_kwargs.fps"


async def test_limits_reach_the_media_with_their_fields(world: ServerFixture) -> None:
    part = {"type": "image_url", "image_url": {"url": URL, "detail": "low"}}
    kwargs = {"max_pixels": 784, "size": {"shortest_edge": 3136}}
    answer = await world.ask(messages=[{"role": "user", "content": [part]}], mm_processor_kwargs=kwargs)
    assert answer.status_code == 200
    (sent,) = world.media.parts
    assert sent.limits == MediaLimits(min_pixels=3136, max_pixels=64 * 784)
    assert sent.limit_params["min_pixels"] == "mm_processor_kwargs.size.shortest_edge"


async def test_completions_have_no_media(world: ServerFixture) -> None:
    body = {"model": "tessera-test", "prompt": "a", "mm_processor_kwargs": {"fps": 1.0}}
    answer = await world.client.post("/v1/completions", json=body)
    check_error(answer, 400, param="mm_processor_kwargs", code="unsupported_parameter")
