"""What a newcomer sees: the server without any setting, and the README's question about the README's picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from model_executor.checkpoint import BUNDLED_MODEL
from tests.pictures import asked, data_url, made_clip, photo, picture_part, text_part
from tests.serving import RunningServer

pytestmark = pytest.mark.engine

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
