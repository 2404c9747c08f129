"""OpenAI's Agents SDK over both APIs: streams, tools with images, sessions in SQLite and on the server, handoffs."""

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from agents import (
    Agent,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    ToolOutputImage,
    function_tool,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

PICTURE = "data:image/png;base64," + base64.b64encode(Path(os.environ["PICTURE"]).read_bytes()).decode()
QUESTION: Any = {
    "role": "user",
    "content": [
        {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
        {"type": "input_text", "text": "What is in this picture?"},
    ],
}
SETTINGS = ModelSettings(temperature=0, max_tokens=400, frequency_penalty=1)


def chat() -> Model:
    return OpenAIChatCompletionsModel("tessera-tiny", AsyncOpenAI())


def responses() -> Model:
    return OpenAIResponsesModel("tessera-tiny", AsyncOpenAI())


BOTH = pytest.mark.parametrize("api", [chat, responses])


@function_tool
def look_again(color: str) -> ToolOutputImage:
    """Looks again."""
    return ToolOutputImage(image_url=PICTURE)


def agent(model: Model, **more: Any) -> Agent[None]:
    return Agent(**{"name": "seer", "model": model, "model_settings": SETTINGS, **more})


@BOTH
async def test_a_run_sees_an_image(api: Any) -> None:
    done = await Runner.run(agent(api()), [QUESTION])
    assert "red circle" in done.final_output
    assert done.context_wrapper.usage.input_tokens > 49


@BOTH
async def test_a_streamed_run(api: Any) -> None:
    run = Runner.run_streamed(agent(api()), [QUESTION])
    kinds = [event.type async for event in run.stream_events()]
    assert "raw_response_event" in kinds and "red circle" in run.final_output


@BOTH
async def test_a_tool_shows_an_image_and_the_run_goes_on(api: Any) -> None:
    if api is chat:  # OpenAI's chat completions take no images of tools, and the SDK makes text of them
        pytest.skip("the SDK sends no images of tools over chat completions")
    settings = ModelSettings(temperature=0, max_tokens=400, frequency_penalty=1, tool_choice="required")
    done = await Runner.run(agent(api(), tools=[look_again], model_settings=settings), [QUESTION])
    kinds = [item.type for item in done.new_items]
    assert "tool_call_item" in kinds and "tool_call_output_item" in kinds


@BOTH
async def test_a_tool_is_called_and_its_text_goes_back(api: Any) -> None:
    @function_tool
    def paint(count: int) -> str:
        """Paints."""
        return "painted"

    settings = ModelSettings(temperature=0, max_tokens=400, frequency_penalty=1, tool_choice="required")
    done = await Runner.run(agent(api(), tools=[paint], model_settings=settings), [QUESTION])
    assert [item.type for item in done.new_items][:2] == ["tool_call_item", "tool_call_output_item"]


@BOTH
async def test_an_object(api: Any) -> None:
    class Painting(BaseModel):
        shapes: int
        framed: bool

    done = await Runner.run(agent(api(), output_type=Painting), [QUESTION])
    assert isinstance(done.final_output, Painting)


@BOTH
async def test_a_session_in_sqlite(api: Any) -> None:
    session = SQLiteSession("one")
    await Runner.run(agent(api()), "Hello", session=session)
    second = await Runner.run(agent(api()), "And now?", session=session)
    assert len(await session.get_items()) == 4 and second.final_output is not None


async def test_a_conversation_on_the_server() -> None:
    session = OpenAIConversationsSession(openai_client=AsyncOpenAI())
    await Runner.run(agent(responses()), "Hello", session=session)
    await Runner.run(agent(responses()), "And now?", session=session)
    assert len(await session.get_items()) == 4
    await session.clear_session()


async def test_the_server_remembers_the_turn_before() -> None:
    first = await Runner.run(agent(responses()), "Hello")
    second = await Runner.run(agent(responses()), "And now?", previous_response_id=first.last_response_id)
    assert second.context_wrapper.usage.input_tokens > first.context_wrapper.usage.input_tokens


@BOTH
async def test_a_handoff(api: Any) -> None:
    other = agent(api(), handoff_description="Knows everything.")
    settings = ModelSettings(temperature=0, max_tokens=400, tool_choice="required")
    first = agent(api(), name="first", handoffs=[other], model_settings=settings)
    done = await Runner.run(first, "Hello")
    assert done.last_agent is other
