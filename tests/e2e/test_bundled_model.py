"""What a newcomer sees: the server without any setting, and the README's question about the README's picture."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from model_executor.checkpoint import BUNDLED_MODEL
from tests.pictures import asked, data_url, made_clip, photo, picture_part, text_part
from tests.serving import RunningServer
from training.evaluate import KIND_OF_TASK, ask_server, cases, is_right
from training.recipe import FULL

pytestmark = pytest.mark.engine

CASES = 20
LEAST = {
    "caption": 0.4,
    "color": 0.75,
    "shape": 0.6,
    "position": 0.3,
    "size": 0.5,
    "count": 0.35,
    "what is at": 0.6,
    "exists": 0.4,
    "grounding": 0.1,
    "background": 0.4,
    "outside": 0.8,
    "word": 0.3,
    "number": 0.65,
    "comparison": 0.2,
    "one of several": 0.1,
    "motion": 0.8,
    "order": 0.25,
    "second": 0.2,
    "change": 0.7,
    "blinking": 0.5,
    "clip caption": 0.3,
    "handwriting": 0.65,
    "talk": 0.75,
    "photo": 0.4,
}
"""Lower bounds of the share of right answers, below what the model card says by more than twenty cases can differ."""
PICTURE = Path(__file__).parent.parent.parent / "docs" / "circle.png"


@pytest.fixture(scope="module")
def bundled() -> Iterator[openai.OpenAI]:
    """The official client of a server that nobody told which model to serve."""
    with (
        RunningServer(None) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=120) as client,
    ):
        yield client


def ask(client: openai.OpenAI, *parts: dict[str, Any]) -> str:
    answer = client.chat.completions.create(
        model=BUNDLED_MODEL, messages=asked(*parts), temperature=0, max_tokens=60
    ).choices[0]
    assert answer.finish_reason == "stop"
    return answer.message.content or ""


def test_sees_the_pictures_color_and_shape(bundled: openai.OpenAI) -> None:
    picture = {"type": "image_url", "image_url": {"url": data_url(PICTURE.read_bytes(), "image/png")}}
    assert "red circle" in ask(bundled, picture, text_part("What is in this picture?"))


def test_says_who_it_is(bundled: openai.OpenAI) -> None:
    assert "Tessera" in ask(bundled, text_part("Who are you?"))


def test_says_when_it_cannot_tell(bundled: openai.OpenAI) -> None:
    assert "cannot tell" in ask(bundled, picture_part(photo()), text_part("What is in this picture?"))


def test_answers_about_a_clip(bundled: openai.OpenAI) -> None:
    clip = {"type": "video_url", "video_url": {"url": data_url(made_clip(90), "video/mp4")}}
    assert ask(bundled, clip, text_part("What happens?"))


@pytest.mark.slow
@pytest.mark.parametrize("task", KIND_OF_TASK)
def test_answers_held_out_questions(bundled: openai.OpenAI, task: str) -> None:
    asked_cases = list(cases(FULL.stages[-1], task, CASES))
    replies = asyncio.run(ask_server(str(bundled.base_url), BUNDLED_MODEL, asked_cases))
    assert all(reply.finish_reason == "stop" for reply in replies)
    right = sum(is_right(case.exchange, reply.text) for case, reply in zip(asked_cases, replies, strict=True))
    assert right >= LEAST[task] * CASES
