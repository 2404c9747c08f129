"""What pictures and clips cost, as a client sees it in `usage`."""

from fractions import Fraction
from typing import Any

import openai
import pytest

from tests.support.images import asked, clip_part, made_clip, picture_part, plain, text_part

pytestmark = pytest.mark.engine


def prompt_tokens(client: openai.OpenAI, parts: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """`usage.prompt_tokens` and the details, extras included."""
    answer = client.chat.completions.create(
        model="tessera-test",
        max_tokens=1,
        messages=asked(*parts),
    )
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    return answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.model_dump()


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [
        (224, 224, 64),
        (1, 1, 4),
        (14, 14, 4),
        (28, 28, 4),
        (42, 42, 4),
        (56, 56, 4),
        (70, 70, 4),
        (84, 84, 9),
        (98, 98, 16),
        (100, 13, 4),
        (100, 100, 16),
        (126, 126, 16),
        (200, 300, 77),
        (300, 200, 77),
        (504, 336, 216),
        (640, 480, 391),
        (480, 640, 391),
        (512, 512, 324),
        (1280, 720, 1196),
        (1280, 960, 1564),
        (5600, 28, 200),
        (28, 5600, 200),
    ],
)
def test_a_picture_costs_its_grid_and_two_delimiters(
    client: openai.OpenAI, width: int, height: int, tokens: int
) -> None:
    without, _ = prompt_tokens(client, [text_part("What is it?")])
    with_picture, details = prompt_tokens(client, [picture_part(plain(width, height)), text_part("What is it?")])
    assert with_picture - without == tokens + 2
    assert details["image_tokens"] == tokens


@pytest.mark.slow
@pytest.mark.parametrize(
    ("duration_s", "rate", "width", "height", "tokens"),
    [
        (1, 30, 64, 64, 2 * 144),
        (30, 2, 1280, 720, 15_810),
        (300, 5, 320, 180, 13_500),
        (3600, 1, 96, 54, 15_360),
    ],
)
def test_a_clip_never_costs_more_than_the_cap(
    client: openai.OpenAI, duration_s: int, rate: int, width: int, height: int, tokens: int
) -> None:
    clip = made_clip(duration_s * rate, rate=Fraction(rate), width=width, height=height)
    _, details = prompt_tokens(client, [clip_part(clip), text_part("What happens?")])
    assert details["video_tokens"] <= 16_384
    assert details["video_tokens"] == tokens
