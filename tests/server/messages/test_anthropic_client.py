"""The official `anthropic` package against a live server: whole and streamed, in both its kinds, and its errors."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any, cast

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message
from pydantic import BaseModel

from model_executor.engine import Delta, EngineBusyError, EngineState, EngineUnavailableError, RequestFailedError
from tests.support.fakes import MODEL, FakeEngine, say
from tests.support.images import png
from tests.support.world import OpenWorld, ServerFixture

HI: Any = [{"role": "user", "content": "Hi."}]
IMAGE = base64.b64encode(png()).decode()
WEATHER: Any = {
    "name": "get_weather",
    "description": "Of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = ("Let me see.\n<tool_call>\n", '{"name": "get_weather", "arguments": {"city": ', '"Oslo"}}\n</tool_call>')


class City(BaseModel):
    name: str
    people: int


@pytest.fixture
async def live(open_world: OpenWorld) -> AsyncIterator[ServerFixture]:
    async with open_world(live=True, api_key="secret") as world:
        yield world


def sdk(world: ServerFixture, *, key: str = "secret", **options: Any) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=world.url, api_key=key, max_retries=0, timeout=20, **options)


def caller() -> FakeEngine:
    return FakeEngine(script=lambda *_: say(*CALL))


async def test_a_message(live: ServerFixture) -> None:
    async with sdk(live) as client:
        message = await client.messages.create(
            model=MODEL,
            max_tokens=16,
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            messages=[
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": IMAGE},
                            "cache_control": {"type": "ephemeral"},
                        },
                        {"type": "text", "text": "What is it?"},
                    ],
                }
            ],
            extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 5},
            stop_sequences=["\n\n"],
            metadata={"user_id": "u"},
            thinking={"type": "disabled"},
            service_tier="auto",
        )
    assert message.type == "message" and message.role == "assistant" and message.id.startswith("msg_")
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Hello, world!"}]
    assert (message.stop_reason, message.stop_sequence, message.model) == ("end_turn", None, MODEL)
    assert message.usage.output_tokens == 3
    assert message.usage.input_tokens == len(live.engine.prompts[0].token_ids)
    (limits,) = live.engine.limits
    assert (limits.max_tokens, limits.temperature, limits.top_p, limits.top_k) == (16, 0.5, 0.9, 5)
    assert limits.stop == ["\n\n"]
    (part,) = live.media.parts
    assert part.modality == "image" and part.source == f"data:image/png;base64,{IMAGE}"


async def test_the_client_reads_the_requests_id(live: ServerFixture) -> None:
    async with sdk(live) as client:
        message = await client.messages.create(
            model=MODEL, max_tokens=16, messages=HI, extra_headers={"x-request-id": "mine-1"}
        )
        assert message._request_id == "mine-1"
        with pytest.raises(anthropic.NotFoundError) as refused:
            await client.messages.create(model="none", max_tokens=16, messages=HI)
        assert refused.value.request_id and refused.value.request_id.startswith("req_")


async def test_a_stream(live: ServerFixture) -> None:
    async with sdk(live) as client:
        kinds = []
        async with client.messages.stream(model=MODEL, max_tokens=16, messages=HI) as stream:
            async for event in stream:
                kinds.append(event.type)
            final = await stream.get_final_message()
    assert [kind for kind in kinds if kind != "text"] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert final.content[0].to_dict()["text"] == "Hello, world!" and final.stop_reason == "end_turn"
    assert final.usage.output_tokens == 3


async def test_the_client_without_asyncio(live: ServerFixture) -> None:
    def ask() -> tuple[str, str, int]:
        with Anthropic(base_url=live.url, api_key="secret", max_retries=0, timeout=20) as client:
            message = client.messages.create(model=MODEL, max_tokens=16, messages=HI)
            with client.messages.stream(model=MODEL, max_tokens=16, messages=HI) as stream:
                streamed = "".join(stream.text_stream)
            counted = client.messages.count_tokens(model=MODEL, messages=HI)
            return message.content[0].to_dict()["text"], streamed, counted.input_tokens  # type: ignore[return-value]

    whole, streamed, num_tokens = await asyncio.to_thread(ask)
    assert whole == streamed == "Hello, world!"
    assert [len(prompt.token_ids) for prompt in live.engine.prompts] == [num_tokens] * 2


async def test_the_clients_own_token_as_a_bearer(live: ServerFixture) -> None:
    async with AsyncAnthropic(base_url=live.url, auth_token="secret", max_retries=0) as client:
        assert (await client.messages.create(model=MODEL, max_tokens=1, messages=HI)).usage.output_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_a_round_with_a_function(open_world: OpenWorld, stream: bool) -> None:
    async with open_world(live=True, engine=caller()) as world, sdk(world) as client:
        message: Message
        if stream:
            async with client.messages.stream(model=MODEL, max_tokens=99, messages=HI, tools=[WEATHER]) as opened:
                message = await opened.get_final_message()
        else:
            message = await client.messages.create(model=MODEL, max_tokens=99, messages=HI, tools=[WEATHER])
        text, call = message.content
        assert text.type == "text" and text.text == "Let me see."
        assert call.type == "tool_use" and call.name == "get_weather" and call.input == {"city": "Oslo"}
        assert call.id.startswith("toolu_") and message.stop_reason == "tool_use"
        image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}}
        result: Any = {
            "type": "tool_result",
            "tool_use_id": call.id,
            "content": [{"type": "text", "text": "Rain."}, image],
        }
        await client.messages.create(
            model=MODEL,
            max_tokens=99,
            tools=[WEATHER],
            messages=[
                *HI,
                message.to_param(),
                {"role": "user", "content": [result, {"type": "text", "text": "Thanks."}]},
            ],
        )
        rendered = world.app.state.service.model().tokenizer.decode(
            world.engine.prompts[-1].token_ids, skip_special_tokens=False
        )
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>' in rendered
    assert "<tool_response>\nRain.<|vision_start|>" in rendered
    assert rendered.endswith("Thanks.<|im_end|>\n<|im_start|>assistant\n")


async def test_functions_are_run_by_the_clients_own_loop(open_world: OpenWorld) -> None:
    @anthropic.beta_async_tool
    async def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: which.
        """
        return f"Rain in {city}."

    answers = [say(*CALL), say("It", " rains.")]
    engine = FakeEngine(script=lambda *_: answers.pop(0))
    async with open_world(live=True, engine=engine) as world, sdk(world) as client:
        runner = client.beta.messages.tool_runner(model=MODEL, max_tokens=99, messages=HI, tools=[get_weather])
        final = await runner.until_done()
    assert final.content[0].to_dict()["text"] == "It rains."


async def test_an_object_of_a_schema(open_world: OpenWorld) -> None:
    engine = FakeEngine(script=lambda *_: say('{"name":"Oslo",', '"people":700000}'))
    async with open_world(live=True, engine=engine) as world, sdk(world) as client:
        parsed = await client.messages.parse(model=MODEL, max_tokens=99, messages=HI, output_format=City)
    assert parsed.parsed_output == City(name="Oslo", people=700000)
    grammar = world.engine.limits[0].grammar
    assert grammar is not None and grammar.kind == "json"


async def test_tokens_are_counted_with_media_and_functions(live: ServerFixture) -> None:
    image: Any = {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://a.org/a"}}]}
    async with sdk(live) as client:
        counted = await client.messages.count_tokens(model=MODEL, system="S", messages=[image], tools=[WEATHER])
        await client.messages.create(model=MODEL, max_tokens=1, system="S", messages=[image], tools=[WEATHER])
    assert counted.input_tokens == len(live.engine.prompts[0].token_ids)
    assert not live.media.held


async def test_an_uploaded_image(live: ServerFixture) -> None:
    headers = {"x-api-key": "secret"}
    uploaded = await live.client.post(
        "/v1/files", headers=headers, files={"file": ("a.png", png())}, data={"purpose": "vision"}
    )
    source = {"type": "file", "file_id": uploaded.json()["id"]}
    turns = cast(Any, [{"role": "user", "content": [{"type": "image", "source": source}]}])
    async with sdk(live) as client:
        await client.messages.create(model=MODEL, max_tokens=1, messages=turns)
        with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\].content\[0\].source.file_id"):
            turns[0]["content"][0]["type"] = "video"
            await client.messages.create(model=MODEL, max_tokens=1, messages=turns)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (EngineBusyError("full"), anthropic.RateLimitError),
        (RequestFailedError("gave up"), anthropic.InternalServerError),
        (EngineUnavailableError("away", EngineState.RESTARTING), anthropic.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_failures_are_the_clients_own_errors(
    open_world: OpenWorld, failure: Exception, error: type[anthropic.APIStatusError], stream: bool
) -> None:
    engine = FakeEngine(script=lambda *_: [failure])
    async with open_world(live=True, engine=engine) as world, sdk(world) as client:
        with pytest.raises(error) as caught:
            await client.messages.create(model=MODEL, max_tokens=16, messages=HI, stream=stream)
    body = cast(Any, caught.value.body)
    assert body["type"] == "error" and set(body["error"]) == {"type", "message"}


async def test_a_failure_in_a_stream_is_an_event(open_world: OpenWorld) -> None:
    engine = FakeEngine(script=lambda *_: [Delta(0, "Hel", [1]), RequestFailedError("gave up")])
    async with open_world(live=True, engine=engine) as world, sdk(world) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            async with client.messages.stream(model=MODEL, max_tokens=16, messages=HI) as stream:
                await stream.get_final_message()
    assert cast(Any, caught.value.body)["error"]["type"] == "api_error"


async def test_refusals(live: ServerFixture) -> None:
    async with sdk(live) as client:
        with pytest.raises(anthropic.NotFoundError, match="does not exist"):
            await client.messages.create(model="claude-sonnet", max_tokens=1, messages=HI)
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
            await client.messages.create(
                model=MODEL, max_tokens=1, messages=[{"role": "user", "content": "Hello, world! " * 4096}]
            )
        with pytest.raises(anthropic.BadRequestError, match=r"'messages\[0\].role' is 'king'"):
            await client.messages.create(model=MODEL, max_tokens=1, messages=cast(Any, [{"role": "king"}]))
    async with sdk(live, key="wrong") as client:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            await client.messages.create(model=MODEL, max_tokens=1, messages=HI)
        assert cast(Any, caught.value.body)["error"]["type"] == "authentication_error"
