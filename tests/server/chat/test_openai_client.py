"""The official `openai` package against a live server: what people actually run."""

import io
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

from model_executor.engine import EngineBusyError, EngineState, EngineUnavailableError, Prompt, SamplingParams
from server.core.errors import BadRequestError, DeadlineError
from tests.support.fakes import MODEL, FakeEngine, FakeMedia, Step, say
from tests.support.images import png
from tests.support.waiting import until
from tests.support.world import OpenWorld, ServerFixture

PICTURE = "data:image/png;base64,AA=="


class Tag(StrEnum):
    X = "x"
    Y = "y"


class Person(BaseModel):
    name: str = Field(description="In full.")
    tags: list[Tag]
    age: int | None


@pytest.fixture
async def live(open_world: OpenWorld) -> AsyncIterator[ServerFixture]:
    async with open_world(live=True, api_key="secret") as world:
        yield world


def sdk(world: ServerFixture, *, key: str = "secret", max_retries: int = 0) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{world.url}/v1", api_key=key, max_retries=max_retries, timeout=20)


async def test_chat(live: ServerFixture) -> None:
    async with sdk(live) as client:
        answer = await client.chat.completions.create(
            model=MODEL,
            messages=[
                {"role": "developer", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is it?"},
                        {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
                    ],
                },
            ],
            max_completion_tokens=16,
            temperature=0,
            user="somebody",
            store=False,
            metadata={"a": "b"},
            extra_body={"top_k": 1, "include": ["media"]},
        )
    assert answer.choices[0].message.content == "Hello, world!"
    assert answer.choices[0].message.refusal is None and answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and answer.usage.completion_tokens == 3
    assert answer.model_extra is not None and answer.model_extra["tessera"]["media"][0]["tokens"] == 4
    assert live.engine.limits[0].top_k == 1


@pytest.mark.filterwarnings("ignore:Pydantic serializer:UserWarning")  # the client, of what it parsed itself
async def test_an_answer_is_parsed_to_the_model_it_was_asked_for(open_world: OpenWorld) -> None:
    engine = FakeEngine(script=lambda _, limits: say('{"name":"Ada","tags":', '["x"],"age":null}'))
    async with open_world(live=True, engine=engine) as world, sdk(world) as client:
        answer = await client.chat.completions.parse(
            model=MODEL, messages=[{"role": "user", "content": "Who?"}], response_format=Person
        )
        message = answer.choices[0].message
        await client.chat.completions.create(
            model=MODEL,
            messages=[message, {"role": "user", "content": "And?"}],  # type: ignore[list-item]
        )
    assert message.parsed == Person(name="Ada", tags=[Tag.X], age=None)
    limits, _ = engine.limits
    assert limits.grammar is not None and '"enum": ["x", "y"]' in limits.grammar.value


async def test_an_answer_can_be_sent_back(live: ServerFixture) -> None:
    async with sdk(live) as client:
        first = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi."}])
        message = first.choices[0].message
        again = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Hi."}, message, {"role": "user", "content": "And?"}],  # type: ignore[list-item]
        )
    assert again.choices[0].message.content == "Hello, world!"


async def test_stream(live: ServerFixture) -> None:
    async with sdk(live) as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Hi."}],
            stream=True,
            stream_options={"include_usage": True},
            n=2,
        )
        texts = ["", ""]
        usage = None
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
            usage = chunk.usage
    assert texts == ["Hello, world!"] * 2
    assert usage is not None and usage.completion_tokens == 6


async def test_the_stream_helper_builds_the_same_answer(live: ServerFixture) -> None:
    async with sdk(live) as client:
        async with client.chat.completions.stream(model=MODEL, messages=[{"role": "user", "content": "Hi."}]) as stream:
            answer = await stream.get_final_completion()
    assert answer.choices[0].message.content == "Hello, world!"


class GetWeather(BaseModel):
    city: str


TOOL = openai.pydantic_function_tool(GetWeather, name="get_weather")
CALL = ["Let me look.\n<tool", '_call>\n{"name": "get_weather", "arg', 'uments": {"city": "Pa', 'ris"}}\n</tool_call>']


def calling(prompt: Prompt, limits: SamplingParams) -> list[Step]:
    """A call, and once its result is there, an answer."""
    texts = ["18 degrees."] if limits.grammar is None else CALL
    return [delta for index in range(limits.n) for delta in say(*texts, index=index)]


async def test_a_function_is_called_and_its_result_sent_back(open_world: OpenWorld) -> None:
    messages: list[Any] = [{"role": "user", "content": "Weather in Paris?"}]
    async with open_world(live=True, engine=FakeEngine(calling)) as world, sdk(world) as client:
        answer = await client.chat.completions.parse(
            model=MODEL, messages=messages, tools=[TOOL], parallel_tool_calls=False, tool_choice="auto"
        )
        (choice,) = answer.choices
        assert choice.finish_reason == "tool_calls" and choice.message.content == "Let me look."
        (call,) = choice.message.tool_calls or []
        assert call.function.parsed_arguments == GetWeather(city="Paris")
        messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "18"}]
        last = await client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL], tool_choice="none")
    assert last.choices[0].message.content == "18 degrees." and last.choices[0].message.tool_calls is None
    assert world.engine.limits[0].grammar is not None


async def test_a_call_is_streamed(open_world: OpenWorld) -> None:
    async with open_world(live=True, engine=FakeEngine(calling)) as world, sdk(world) as client:
        async with client.chat.completions.stream(
            model=MODEL, messages=[{"role": "user", "content": "Weather in Paris?"}], tools=[TOOL], n=2
        ) as stream:
            events = [event async for event in stream]
            answer = await stream.get_final_completion()
    for choice in answer.choices:
        assert (choice.message.content, choice.finish_reason) == ("Let me look.", "tool_calls")
        (call,) = choice.message.tool_calls or []
        assert call.function.parsed_arguments == GetWeather(city="Paris")
    pieces = [event.arguments_delta for event in events if event.type == "tool_calls.function.arguments.delta"]
    assert "".join(pieces) == 2 * '{"city": "Paris"}' and len([piece for piece in pieces if piece]) == 4


async def test_an_unanswered_call_is_a_bad_request_error(live: ServerFixture) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages: list[Any] = [{"role": "user", "content": "Hi."}, {"role": "assistant", "tool_calls": [call]}]
    async with sdk(live) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model=MODEL, messages=messages)
    assert caught.value.param == "messages[1].tool_calls"


async def test_completions(live: ServerFixture) -> None:
    async with sdk(live) as client:
        answer = await client.completions.create(
            model=MODEL,
            prompt=["Once", "Twice"],
            max_tokens=5,
            n=2,
            best_of=2,
            echo=False,
            suffix=None,
            user="somebody",
        )
    assert [choice.text for choice in answer.choices] == ["Hello, world!"] * 4
    assert [choice.finish_reason for choice in answer.choices] == ["stop"] * 4
    assert answer.usage is not None and answer.usage.completion_tokens == 12
    assert live.engine.limits[0].max_tokens == 5


async def test_completions_as_a_stream(live: ServerFixture) -> None:
    async with sdk(live) as client:
        stream = await client.completions.create(
            model=MODEL, prompt=[1, 2, 3], stream=True, stream_options={"include_usage": True}
        )
        events = [event async for event in stream]
    assert "".join(event.choices[0].text for event in events[:-1]) == "Hello, world!"
    assert events[-1].usage is not None and events[-1].usage.prompt_tokens == 3
    assert not events[-1].choices


async def test_responses(live: ServerFixture) -> None:
    async with sdk(live) as client:
        first = await client.responses.create(
            model=MODEL,
            instructions="Be brief.",
            input=[
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "What is it?"},
                        {"type": "input_image", "image_url": PICTURE, "detail": "low"},
                    ],
                }
            ],
            max_output_tokens=16,
            temperature=0,
            store=False,
            metadata={"a": "b"},
        )
        assert first.output_text == "Hello, world!" and first.status == "completed"
        assert first.usage is not None and first.usage.output_tokens == 3
        sent_back = [item.model_dump(exclude_unset=True) for item in first.output]
        again = await client.responses.create(model=MODEL, input=[*sent_back, {"role": "user", "content": "And?"}])  # type: ignore[list-item]
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model=MODEL, input="And?", previous_response_id=first.id)
    assert again.output_text == "Hello, world!"
    assert caught.value.param == "previous_response_id"


async def test_a_response_is_parsed_to_the_model_it_was_asked_for(open_world: OpenWorld) -> None:
    engine = FakeEngine(script=lambda _, limits: say('{"name":"Ada","tags":', '["x"],"age":null}'))
    async with open_world(live=True, engine=engine) as world, sdk(world) as client:
        answer = await client.responses.parse(model=MODEL, input="Who?", text_format=Person)
        async with client.responses.stream(model=MODEL, input="Who?", text_format=Person) as stream:
            streamed = await stream.get_final_response()
    assert answer.output_parsed == streamed.output_parsed == Person(name="Ada", tags=[Tag.X], age=None)
    assert engine.limits[0].grammar is not None and engine.limits[0].grammar == engine.limits[1].grammar


async def test_a_streamed_response_adds_up_to_the_whole_one(live: ServerFixture) -> None:
    async with sdk(live) as client, client.responses.stream(model=MODEL, input="Hi.") as stream:
        deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert "".join(deltas) == final.output_text == "Hello, world!"


async def test_models(live: ServerFixture) -> None:
    async with sdk(live) as client:
        assert [model.id async for model in client.models.list()] == [MODEL]
        assert (await client.models.retrieve(MODEL)).owned_by == "tessera"
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("gpt-5")
    assert caught.value.code == "model_not_found"


async def test_files(live: ServerFixture) -> None:
    data = png(300_000)
    async with sdk(live) as client:
        made = await client.files.create(
            file=("a.png", data), purpose="vision", expires_after={"anchor": "created_at", "seconds": 3600}
        )
        assert (made.object, made.bytes, made.filename, made.purpose) == ("file", 300_000, "a.png", "vision")
        assert made.status == "processed" and made.expires_at == made.created_at + 3600
        other = await client.files.create(file=io.BytesIO(data), purpose="user_data")
        assert [file.id async for file in client.files.list(limit=1)] == [other.id, made.id]  # two pages
        assert await client.files.retrieve(made.id) == made
        assert (await client.files.content(made.id)).content == data
        answer = await client.chat.completions.create(
            model=MODEL,
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "What?"}, {"type": "file", "file": {"file_id": made.id}}],
                }
            ],
        )
        assert answer.choices[0].message.content == "Hello, world!"
        assert [part.modality for part in live.media.parts] == ["image"]
        assert (await client.files.delete(made.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(made.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.files.create(file=b"hello", purpose="vision")
    assert caught.value.param == "file"


async def test_a_wrong_key_is_an_authentication_error(live: ServerFixture) -> None:
    async with sdk(live, key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.models.list()
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_wrong_request_is_a_bad_request_error(live: ServerFixture, stream: bool) -> None:
    async with sdk(live) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Hi."}], temperature=3, stream=stream
            )
    assert (caught.value.param, caught.value.type) == ("temperature", "invalid_request_error")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "kind", "status", "num_asked"),
    [
        # The server itself tries a second time, too.
        (EngineUnavailableError("lost", EngineState.RESTARTING), openai.InternalServerError, 503, 4),
        (EngineBusyError("64 wait"), openai.RateLimitError, 429, 2),
        (RuntimeError("fault"), openai.InternalServerError, 500, 2),
        (BadRequestError("no"), openai.BadRequestError, 400, 1),
    ],
)
async def test_errors_have_the_right_class_and_are_retried_where_that_helps(
    open_world: OpenWorld, failure: Exception, kind: type[openai.APIStatusError], status: int, num_asked: int
) -> None:
    engine = FakeEngine(script=lambda *_: [failure])
    async with open_world(live=True, engine=engine) as world, sdk(world, max_retries=1) as client:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi."}])
    assert caught.value.status_code == status
    assert len(engine.prompts) == num_asked


async def test_media_that_took_too_long_are_not_uploaded_again(open_world: OpenWorld) -> None:
    media = FakeMedia(failure=DeadlineError("too slow"))
    async with open_world(live=True, media=media) as world, sdk(world, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}],
            )
    assert caught.value.status_code == 504
    assert len(media.parts) == 1


async def test_a_failure_in_a_stream_is_an_api_error(open_world: OpenWorld) -> None:
    first, _ = say("one", "two")
    engine = FakeEngine(script=lambda *_: [first, RuntimeError("lost")])
    async with open_world(live=True, engine=engine) as world, sdk(world) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi."}], stream=True
        )
        seen = []
        with pytest.raises(openai.APIError):
            async for chunk in stream:
                seen.append(chunk)
    assert seen


async def test_a_stream_left_early_frees_its_place(open_world: OpenWorld) -> None:
    engine = FakeEngine(script=lambda *_: [step for delta in say(*["word "] * 1000) for step in (delta, 0.01)])
    async with open_world(live=True, engine=engine) as world, sdk(world) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi."}], stream=True
        )
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        await until(lambda: engine.aborted)
