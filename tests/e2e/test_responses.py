"""The Responses API and an adapter through the whole server, by the official client."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.adapters import write_adapter
from tests.support.images import asked, data_url, encoded, picture_part, small_photos, text_part
from tests.support.serving import RunningServer

pytestmark = pytest.mark.engine

NUM_TOKENS = 24


@pytest.fixture(scope="module")
def adapted_server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with one adapter, in the names of the release."""
    folder = tmp_path_factory.mktemp("adapters")
    write_adapter(folder / "poet", checkpoint, prefix="model.")
    settings = {"TESSERA_ENGINE__DTYPE": "float32", "TESSERA_ENGINE__LORA_DIR": str(folder)}
    with RunningServer(checkpoint, settings) as running:
        yield running


@pytest.fixture(scope="module")
def adapted_client(adapted_server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{adapted_server.url}/v1", api_key="unused", max_retries=0, timeout=300) as made:
        yield made


@pytest.mark.parametrize("model", ["tessera-test", "poet"])
def test_says_what_chat_says_whole_and_streamed(adapted_client: openai.OpenAI, model: str) -> None:
    picture = small_photos()[0]
    url = data_url(encoded(picture), "image/png")
    asked_here: Any = {
        "model": model,
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": url},
                    {"type": "input_text", "text": "What is this?"},
                ],
            }
        ],
        "temperature": 0,
        "max_output_tokens": NUM_TOKENS,
    }
    whole = adapted_client.responses.create(**asked_here)
    with adapted_client.responses.stream(**asked_here) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    chat = adapted_client.chat.completions.create(
        model=model,
        messages=asked(picture_part(picture), text_part("What is this?")),
        temperature=0,
        max_tokens=NUM_TOKENS,
    )
    assert whole.output_text == "".join(deltas) == chat.choices[0].message.content
    assert whole.usage is not None and chat.usage is not None
    assert whole.usage.input_tokens == chat.usage.prompt_tokens
    assert whole.model == chat.model == model
    cut = chat.choices[0].finish_reason == "length"
    assert whole.status == ("incomplete" if cut else "completed")


def test_the_adapter_answers_otherwise_than_the_model(adapted_client: openai.OpenAI) -> None:
    answers = [
        adapted_client.responses.create(model=model, input="Count.", temperature=0, max_output_tokens=NUM_TOKENS)
        for model in ("tessera-test", "poet", "tessera-test")
    ]
    texts = [answer.output_text for answer in answers]
    assert texts[0] == texts[2] != texts[1]


def test_lists_the_adapter(adapted_server: RunningServer) -> None:
    listed = httpx.get(f"{adapted_server.url}/v1/models").json()["data"]
    assert [(model["id"], model.get("parent")) for model in listed] == [
        ("tessera-test", None),
        ("poet", "tessera-test"),
    ]
