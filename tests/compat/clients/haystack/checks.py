"""Haystack's chat generators over both APIs: images, streams, tools and their results, an agent."""

import os
from typing import Any

import pytest
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage, ImageContent
from haystack.tools import Tool

IMAGE = ImageContent.from_file_path(os.environ["PICTURE"])
QUESTION = ChatMessage.from_user(content_parts=[IMAGE, "What is in this picture?"])
PAINT = Tool(
    name="paint",
    description="Paints.",
    parameters={
        "type": "object",
        "properties": {"color": {"type": "string", "enum": ["red", "green"]}},
        "required": ["color"],
    },
    function=lambda color: f"painted {color}",
)
BOTH = pytest.mark.parametrize("kind", [OpenAIChatGenerator, OpenAIResponsesChatGenerator])


def generator(kind: Any, **more: Any) -> Any:
    limit = "max_tokens" if kind is OpenAIChatGenerator else "max_output_tokens"
    return kind(model="tessera-tiny", generation_kwargs={"temperature": 0, limit: 100, **more})


@BOTH
def test_an_image_whole_and_streamed(kind: Any) -> None:
    whole = generator(kind).run([QUESTION])["replies"][0]
    assert "red circle" in whole.text
    pieces: list[str] = []
    streamed = generator(kind).run([QUESTION], streaming_callback=lambda chunk: pieces.append(chunk.content))
    assert streamed["replies"][0].text == whole.text == "".join(pieces)


@BOTH
def test_a_tool_is_called_and_its_result_goes_back_with_an_image(kind: Any) -> None:
    called = generator(kind, tool_choice="required").run([QUESTION], tools=[PAINT])["replies"][0]
    (call,) = called.tool_calls
    assert call.tool_name == "paint" and call.arguments["color"] in ("red", "green")
    result: Any = "painted" if kind is OpenAIChatGenerator else [IMAGE]
    history = [QUESTION, called, ChatMessage.from_tool(tool_result=result, origin=call)]
    assert generator(kind).run(history, tools=[PAINT])["replies"]
