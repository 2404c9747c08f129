"""The chat route over fakes: what comes back, what the engine and the media side are asked, what is refused."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_executor.engine import (
    Delta,
    EngineBusyError,
    EngineState,
    EngineUnavailableError,
    PositionLogprobs,
    Prompt,
    RequestFailedError,
    RequestRefusedError,
    SamplingParams,
    TokenLogprob,
)
from server.chat.request import ChatCompletionRequest
from server.core.errors import BadRequestError, DeadlineError, RateLimitError
from tests.support.error_body import check_error, check_error_body
from tests.support.events import events
from tests.support.fakes import MODEL, FakeEngine, FakeMedia, say
from tests.support.world import OpenWorld, ServerFixture

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
VIDEO = {"type": "video_url", "video_url": {"url": "https://example.org/clip.mp4"}}


def text_of(chunks: list[dict[str, Any]], index: int = 0) -> str:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(delta.get("content", "") for delta in deltas)


async def test_answers_as_a_whole(world: ServerFixture) -> None:
    answer = (await world.ask()).json()
    assert answer["object"] == "chat.completion" and answer["model"] == MODEL
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello, world!", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert answer["usage"]["prompt_tokens"] == len(world.engine.prompts[0].token_ids)
    assert answer["usage"]["completion_tokens"] == 3


async def test_answers_as_a_stream_with_one_id_and_time(world: ServerFixture) -> None:
    chunks = events(await world.ask(stream=True))
    assert text_of(chunks) == "Hello, world!"
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert not any("usage" in chunk for chunk in chunks)


async def test_a_stream_counts_tokens_when_asked(world: ServerFixture) -> None:
    *chunks, last = events(await world.ask(stream=True, stream_options={"include_usage": True}))
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 3


async def test_choices_of_a_stream_interleave(world: ServerFixture) -> None:
    chunks = events(await world.ask(stream=True, n=3))
    assert [text_of(chunks, index) for index in range(3)] == ["Hello, world!"] * 3
    order = [chunk["choices"][0]["index"] for chunk in chunks]
    assert order != sorted(order)


async def test_the_engine_gets_the_rendered_prompt(world: ServerFixture) -> None:
    await world.ask(messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi."}])
    rendered = world.app.state.service.model().tokenizer.decode(
        world.engine.prompts[0].token_ids, skip_special_tokens=False
    )
    assert rendered == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n"
    )


async def test_continues_the_final_message(world: ServerFixture) -> None:
    messages = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Well"}]
    assert (await world.ask(messages=messages, continue_final_message=True)).status_code == 200
    ids = world.engine.prompts[0].token_ids
    assert world.app.state.service.model().tokenizer.decode(ids).endswith("Well")


@pytest.mark.parametrize("stream", [False, True])
async def test_media_are_prepared_counted_and_released(world: ServerFixture, stream: bool) -> None:
    content = [IMAGE, {"type": "text", "text": "and"}, VIDEO]
    response = await world.ask(
        messages=[{"role": "user", "content": content}], stream=stream, stream_options=usage_if(stream)
    )
    usage = (events(response)[-1] if stream else response.json())["usage"]
    assert [part.param for part in world.media.parts] == [
        "messages[0].content[0].image_url",
        "messages[0].content[2].video_url",
    ]
    assert [(item.modality, item.num_tokens) for item in world.engine.prompts[0].media] == [("image", 4), ("video", 3)]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0, "image_tokens": 4, "video_tokens": 3}
    assert not world.media.held


def usage_if(stream: bool) -> dict[str, Any] | None:
    return {"include_usage": True} if stream else None


@pytest.mark.parametrize("stream", [False, True])
async def test_tells_what_was_done_to_media_on_request(world: ServerFixture, stream: bool) -> None:
    messages = [{"role": "user", "content": [IMAGE, VIDEO]}]
    plain = await world.ask(messages=messages, stream=stream)
    assert '"tessera":' not in plain.text
    response = await world.ask(messages=messages, stream=stream, include=["media"])
    told = (events(response)[-1] if stream else response.json())["tessera"]["media"]
    assert told == [
        {
            "param": "messages[0].content[0].image_url",
            "modality": "image",
            "source_size": {"width": 640, "height": 480},
            "size": {"width": 56, "height": 56},
            "box_extent": {"width": 1000, "height": 1000},
            "grid": [1, 4, 4],
            "tokens": 4,
            "frames": None,
            "timestamps": None,
            "fps": None,
            "notes": [],
        },
        {
            "param": "messages[0].content[1].video_url",
            "modality": "video",
            "source_size": {"width": 640, "height": 480},
            "size": {"width": 28, "height": 28},
            "box_extent": {"width": 1000, "height": 1000},
            "grid": [3, 2, 2],
            "tokens": 3,
            "frames": 6,
            "timestamps": [0.0, 0.5, 1.0, 1.5, 2.0, 2.5],
            "fps": 2.0,
            "notes": ["a note"],
        },
    ]


async def test_the_key_used_separates_caches(open_world: OpenWorld) -> None:
    async with open_world(api_key="one,two") as world:
        messages = [{"role": "user", "content": [IMAGE]}]
        for key in ("one", "two", "one"):
            world.client.headers["Authorization"] = f"Bearer {key}"
            assert (await world.ask(messages=messages)).status_code == 200
    first, second, third = world.media.tenants
    assert first == third != second
    assert [prompt.cache_salt for prompt in world.engine.prompts] == world.media.tenants
    assert "one" not in first


async def test_without_keys_all_share_one_cache(world: ServerFixture) -> None:
    await world.ask(messages=[{"role": "user", "content": [IMAGE]}])
    assert world.media.tenants == [""] and world.engine.prompts[0].cache_salt is None


REFUSED_BODIES: list[tuple[dict[str, Any], int, str | None, str | None]] = [
    ({"temperature": 3}, 400, "temperature", "invalid_value"),
    ({"tools": []}, 400, "tools", "invalid_value"),
    ({"audio": {}}, 400, "audio", "unsupported_parameter"),
    ({"model": "gpt-5"}, 404, "model", "model_not_found"),
    ({"model": None}, 400, "model", "missing_required_parameter"),
    ({"messages": []}, 400, "messages", "invalid_value"),
    ({"max_tokens": 5000}, 400, "messages", "context_length_exceeded"),
    ({"messages": [{"role": "user", "content": "word " * 5000}]}, 400, "messages", "context_length_exceeded"),
    ({"logit_bias": {"999999": 1}}, 400, "logit_bias", "invalid_value"),
    (
        {"messages": [{"role": "user", "content": [{"type": "x"}]}]},
        400,
        "messages[0].content[0].type",
        "unsupported_value",
    ),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("changes", "status", "param", "code"), REFUSED_BODIES)
async def test_refusals_are_http_errors_streaming_or_not(
    world: ServerFixture, changes: dict[str, Any], status: int, param: str | None, code: str | None, stream: bool
) -> None:
    check_error(await world.ask(**changes, stream=stream), status, param=param, code=code)
    assert not world.engine.prompts and not world.media.held


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "status", "param", "code"),
    [
        (
            BadRequestError("no picture", param="messages[0].content[0].image_url"),
            400,
            "messages[0].content[0].image_url",
            None,
        ),
        (DeadlineError("too slow", param="messages[0]"), 504, "messages[0]", "media_deadline_exceeded"),
        (RateLimitError("queue full"), 429, None, "rate_limit_exceeded"),
        (ValueError("/srv/secret"), 500, None, None),
    ],
)
async def test_media_failures_are_http_errors(
    open_world: OpenWorld, failure: Exception, status: int, param: str | None, code: str | None, stream: bool
) -> None:
    async with open_world(media=FakeMedia(failure=failure)) as world:
        response = await world.ask(messages=[{"role": "user", "content": [IMAGE]}], stream=stream)
        check_error(response, status, param=param, code=code)


ENGINE_FAILURES: list[tuple[Exception, int, str | None, str | None]] = [
    (EngineUnavailableError("it was lost", EngineState.RESTARTING), 503, None, "engine_unavailable"),
    (EngineBusyError("64 requests wait"), 429, None, "rate_limit_exceeded"),
    (RequestRefusedError("no such token", "logit_bias", "invalid_value"), 400, "logit_bias", "invalid_value"),
    (RequestFailedError("/dev/shm/x is gone"), 500, None, None),
    (KeyError("/work"), 500, None, None),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("failure", "status", "param", "code"), ENGINE_FAILURES)
async def test_early_engine_failures_are_http_errors(
    open_world: OpenWorld, failure: Exception, status: int, param: str | None, code: str | None, stream: bool
) -> None:
    media = FakeMedia()
    async with open_world(engine=FakeEngine(script=lambda *_: [failure]), media=media) as world:
        response = await world.ask(messages=[{"role": "user", "content": [IMAGE]}], stream=stream)
        check_error(response, status, param=param, code=code)
    assert not media.held


@pytest.mark.parametrize(("failure", "status", "param", "code"), ENGINE_FAILURES)
async def test_late_engine_failures_are_one_event(
    open_world: OpenWorld, failure: Exception, status: int, param: str | None, code: str | None
) -> None:
    async with open_world(engine=FakeEngine(script=lambda *_: [Delta(0, "Hel", [1]), failure])) as world:
        *chunks, error = events(await world.ask(stream=True))
    assert text_of(chunks) == "Hel"
    check_error_body(error, status, param=param, code=code)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_ends_early_is_a_fault_of_ours(open_world: OpenWorld, stream: bool) -> None:
    async with open_world(engine=FakeEngine(script=lambda *_: [Delta(0, "Hel", [1])])) as world:
        response = await world.ask(stream=stream)
        if stream:
            check_error_body(events(response)[-1], 500)
        else:
            check_error(response, 500)


@pytest.mark.parametrize("state", [EngineState.LOADING, EngineState.RESTARTING, EngineState.FAILED])
async def test_says_when_to_come_back_while_the_engine_is_away(open_world: OpenWorld, state: EngineState) -> None:
    async with open_world(engine=FakeEngine(state=state)) as world:
        await asyncio.sleep(0)
        assert state.value in check_error(await world.ask(), 503, code="engine_unavailable")


async def test_logprobs_whole_and_streamed(open_world: OpenWorld) -> None:
    def script(_: Prompt, limits: SamplingParams) -> list[Delta]:
        assert limits.logprobs == 1
        position = PositionLogprobs(TokenLogprob(9707, -0.25), [TokenLogprob(9707, -0.25), TokenLogprob(0, -3)])
        return [Delta(0, "Hello", [9707], logprobs=[position], finish_reason="length")]

    expected = {"token": "Hello", "logprob": -0.25, "bytes": list(b"Hello")}
    async with open_world(engine=FakeEngine(script=script)) as world:
        whole = (await world.ask(logprobs=True, top_logprobs=1)).json()["choices"][0]["logprobs"]
        assert whole == {"content": [{**expected, "top_logprobs": [expected]}], "refusal": None}
        chunks = events(await world.ask(logprobs=True, top_logprobs=1, stream=True))
        assert [chunk["choices"][0]["logprobs"] for chunk in chunks if chunk["choices"][0]["logprobs"]] == [whole]


async def test_a_default_answer_length_applies_where_none_is_asked(open_world: OpenWorld) -> None:
    async with open_world(default_max_tokens=7) as world:
        await world.ask()
        await world.ask(max_tokens=9)
    assert [limits.max_tokens for limits in world.engine.limits] == [7, 9]


async def test_many_requests_at_once_have_engine_ids_of_their_own(open_world: OpenWorld) -> None:
    engine = FakeEngine(script=lambda *_: [0.05, *say("done")])
    async with open_world(engine=engine) as world:
        world.client.headers["x-request-id"] = "the-same"
        answers = await asyncio.gather(*(world.ask() for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 8


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.none() | st.booleans() | NUMBERS | st.text(max_size=6) | st.lists(NUMBERS | st.text(max_size=3), max_size=3)
NAMES = st.sampled_from(sorted(set(ChatCompletionRequest.model_fields) - {"model", "messages"}))


@FUZZ
@given(changes=st.dictionaries(NAMES, VALUES | st.dictionaries(st.text(max_size=6), VALUES, max_size=2), max_size=3))
async def test_no_field_makes_a_500(world: ServerFixture, changes: dict[str, Any]) -> None:
    response = await world.ask(**changes)
    if response.status_code != 200:
        error = response.json()["error"]
        check_error(response, 400, param=error["param"], code=error["code"])
        assert error["param"].split(".")[0].split("[")[0] in (*changes, "messages", "min_tokens")


SPECIAL = st.sampled_from(
    ["<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>", "<|endoftext|>", "\x00", "\r"]
)
PARTS = st.lists(st.text(max_size=8) | SPECIAL, max_size=4).map("".join)


@FUZZ
@given(
    turns=st.lists(
        st.tuples(st.sampled_from(["system", "developer", "user", "assistant"]), PARTS), min_size=1, max_size=4
    )
)
async def test_any_conversation_of_any_text_is_answered(world: ServerFixture, turns: list[tuple[str, str]]) -> None:
    response = await world.ask(messages=[{"role": role, "content": text} for role, text in turns])
    assert response.status_code == 200, response.text
    tokenizer = world.app.state.service.model().tokenizer
    ids = world.engine.prompts[-1].token_ids
    assert ids.count(tokenizer.special_id("<|image_pad|>")) == ids.count(tokenizer.special_id("<|video_pad|>")) == 0
    assert ids.count(tokenizer.special_id("<|im_end|>")) in (len(turns), len(turns) + 1)
