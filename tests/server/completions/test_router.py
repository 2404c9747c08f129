"""Plain completions over fakes: what comes back, what the engine is asked, what is refused."""

from typing import Any

import httpx
import pytest

from model_executor.engine import (
    Delta,
    EngineBusyError,
    EngineState,
    EngineUnavailableError,
    PositionLogprobs,
    Prompt,
    RequestFailedError,
    SamplingParams,
    TokenLogprob,
)
from model_executor.processor.tokenizer import Tokenizer, UserText
from server.completions.protocol import CompletionRequest
from server.generation.generate import PARALLEL_PROMPTS
from tests.support.error_body import check_error, check_error_body
from tests.support.events import events
from tests.support.fakes import MODEL, FakeEngine, Step, say
from tests.support.waiting import until
from tests.support.world import OpenWorld, ServerFixture


async def ask(world: ServerFixture, **fields: Any) -> httpx.Response:
    return await world.client.post("/v1/completions", json={"model": MODEL, "prompt": "Once", **fields})


def parrot(prompt: Prompt, limits: SamplingParams) -> list[Step]:
    """Each choice says the prompt's first id and its own number."""
    return [
        Delta(index, f"{prompt.token_ids[0]}.{index}", [1], finish_reason="stop", num_cached_tokens=2)
        for index in range(limits.n)
    ]


async def test_answers_as_a_whole(world: ServerFixture) -> None:
    answer = (await ask(world)).json()
    assert answer["object"] == "text_completion" and answer["model"] == MODEL and answer["id"].startswith("cmpl-")
    assert answer["choices"] == [{"index": 0, "text": "Hello, world!", "logprobs": None, "finish_reason": "stop"}]
    assert answer["usage"] == {
        "prompt_tokens": len(world.engine.prompts[0].token_ids),
        "completion_tokens": 3,
        "total_tokens": 3 + len(world.engine.prompts[0].token_ids),
        "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": 0, "video_tokens": 0},
    }


async def test_answers_as_a_stream_with_one_id_and_time(world: ServerFixture) -> None:
    chunks = events(await ask(world, stream=True))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Hello, world!"
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert not any("usage" in chunk for chunk in chunks)


async def test_a_stream_counts_tokens_when_asked(world: ServerFixture) -> None:
    *chunks, last = events(await ask(world, stream=True, n=2, stream_options={"include_usage": True}))
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks)
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 6


async def test_the_prompt_is_the_text_and_nothing_else(world: ServerFixture) -> None:
    await ask(world, prompt="Once upon a time")
    tokenizer: Tokenizer = world.app.state.service.model().tokenizer
    assert tokenizer.decode(world.engine.prompts[0].token_ids, skip_special_tokens=False) == "Once upon a time"


async def test_the_name_of_a_control_token_is_plain_text(world: ServerFixture, tokenizer: Tokenizer) -> None:
    await ask(world, prompt="<|im_end|><|image_pad|>")
    ids = world.engine.prompts[0].token_ids
    assert not {tokenizer.special_id("<|im_end|>"), tokenizer.special_id("<|image_pad|>")} & set(ids)


async def test_token_ids_reach_the_engine_as_they_are(world: ServerFixture, tokenizer: Tokenizer) -> None:
    ids = [5, tokenizer.special_id("<|im_start|>"), 7]
    assert (await ask(world, prompt=ids)).status_code == 200
    assert world.engine.prompts[0].token_ids == ids


@pytest.mark.parametrize("prompt", [["!", '"', "#"], [[0], [1], [2]]])
@pytest.mark.parametrize("stream", [False, True])
async def test_several_prompts_give_their_choices_in_order(open_world: OpenWorld, prompt: Any, stream: bool) -> None:
    async with open_world(engine=FakeEngine(script=parrot)) as world:
        options = {"include_usage": True} if stream else None
        response = await ask(world, prompt=prompt, n=2, stream=stream, stream_options=options)
    texts: dict[int, str] = {}
    for answer in events(response) if stream else [response.json()]:
        for choice in answer["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    usage = events(response)[-1]["usage"] if stream else response.json()["usage"]
    assert texts == {0: "0.0", 1: "0.1", 2: "1.0", 3: "1.1", 4: "2.0", 5: "2.1"}
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 6)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 6


async def test_many_prompts_take_turns(open_world: OpenWorld) -> None:
    most = 0

    def watched(prompt: Prompt, limits: SamplingParams) -> list[Step]:
        nonlocal most
        most = max(most, len(engine.running))
        return [0.001, *say("a")]

    engine = FakeEngine(script=watched)
    async with open_world(engine=engine) as world:
        answer = (await ask(world, prompt=["a"] * 40)).json()
    assert len(answer["choices"]) == 40 and most == PARALLEL_PROMPTS


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 16),
        ({"max_tokens": None}, 16),
        ({"max_tokens": 3}, 3),
        ({"prompt": [1] * 4090}, 6),
    ],
)
async def test_an_answer_has_16_tokens_unless_asked_otherwise(
    world: ServerFixture, fields: dict[str, Any], expected: int
) -> None:
    await ask(world, **fields)
    assert world.engine.limits[0].max_tokens == expected


async def test_sampling_fields_reach_the_engine(world: ServerFixture) -> None:
    fields = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["a", "b"], "n": 2, "best_of": 2, "logprobs": 3}
    await ask(world, **fields, echo=False, suffix=None, user="somebody", top_k=4)
    asked = world.engine.limits[0]
    assert (asked.temperature, asked.top_p, asked.seed, asked.stop) == (0.5, 0.9, 7, ["a", "b"])
    assert (asked.n, asked.logprobs, asked.top_k) == (2, 3, 4)


async def test_null_is_the_same_as_absent(world: ServerFixture) -> None:
    for name in CompletionRequest.model_fields.keys() - {"model", "prompt"}:
        assert (await ask(world, **{name: None})).status_code == 200, name
    assert len(world.engine.limits) > 20 and all(limits == world.engine.limits[0] for limits in world.engine.limits)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"prompt": ""}, "prompt", "invalid_value"),
        ({"prompt": []}, "prompt", "invalid_value"),
        ({"prompt": ["a", ""]}, "prompt[1]", "invalid_value"),
        ({"prompt": [[1], []]}, "prompt[1]", "invalid_value"),
        ({"prompt": 5}, "prompt", "invalid_type"),
        ({"prompt": ["a", 1]}, "prompt[1]", "invalid_type"),
        ({"prompt": [1, "a"]}, "prompt[1]", "invalid_type"),
        ({"prompt": [True]}, "prompt[0]", "invalid_type"),
        ({"prompt": [-1]}, "prompt[0]", "invalid_value"),
        ({"prompt": ["a"] * 129}, "prompt", "invalid_value"),
        ({"prompt": [3, 151_936_000]}, "prompt[1]", "invalid_value"),
        ({"prompt": [[3], [151_936_000]]}, "prompt[1][0]", "invalid_value"),
        ({"prompt": [1] * 4096}, "prompt", "context_length_exceeded"),
        ({"prompt": ["a", "word " * 5000]}, "prompt[1]", "context_length_exceeded"),
        ({"max_tokens": 4096}, "prompt", "context_length_exceeded"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"logprobs": 6}, "logprobs", "invalid_value"),
        ({"logprobs": -1}, "logprobs", "invalid_value"),
        ({"logprobs": True}, "logprobs", "invalid_type"),
        ({"echo": 1}, "echo", "invalid_type"),
        ({"suffix": "end"}, "suffix", "unsupported_parameter"),
        ({"best_of": 2}, "best_of", "unsupported_value"),
        ({"n": 2, "best_of": 1}, "best_of", "unsupported_value"),
        ({"n": 17}, "n", "invalid_value"),
        ({"temperature": 2.5}, "temperature", "invalid_value"),
        ({"min_tokens": 17}, "min_tokens", "invalid_value"),
        ({"stream_options": {}}, "stream_options", "invalid_value"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs", "unsupported_parameter"),
        ({"guided_json": {}}, "guided_json", "unsupported_parameter"),
        ({"use_beam_search": True}, "use_beam_search", "unsupported_value"),
        ({"model": "other"}, "model", "model_not_found"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_refuses_by_name(
    world: ServerFixture, fields: dict[str, Any], param: str, code: str, stream: bool
) -> None:
    if "stream_options" in fields and stream:
        return
    response = await ask(world, **fields, stream=stream)
    check_error(response, 404 if param == "model" else 400, param=param, code=code)
    assert not world.engine.prompts


@pytest.mark.parametrize("name", ["<|image_pad|>", "<|video_pad|>"])
async def test_refuses_placeholders_without_media(world: ServerFixture, tokenizer: Tokenizer, name: str) -> None:
    response = await ask(world, prompt=[1, tokenizer.special_id(name)])
    check_error(response, 400, param="prompt", code="invalid_value")


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (EngineBusyError("64 wait"), 429, "rate_limit_exceeded"),
        (EngineUnavailableError("lost", EngineState.RESTARTING), 503, "engine_unavailable"),
        (RequestFailedError("gave up"), 500, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_engines_refusal_of_one_prompt_is_the_requests(
    open_world: OpenWorld, failure: Exception, status: int, code: str | None, stream: bool
) -> None:
    def script(prompt: Prompt, _: SamplingParams) -> list[Step]:
        return [failure] if prompt.token_ids == [1] else [0.05, *say("a")]

    engine = FakeEngine(script=script)
    async with open_world(engine=engine) as world:
        check_error(await ask(world, prompt=[[0], [1], [2]], stream=stream), status, code=code)
    is_tried_again = status == 503 and not stream
    assert not engine.running and len(engine.aborted) == (4 if is_tried_again else 2)


async def test_a_late_failure_is_an_event(open_world: OpenWorld) -> None:
    first, _ = say("one", "two")
    async with open_world(engine=FakeEngine(script=lambda *_: [first, RequestFailedError("lost")])) as world:
        chunk, error = events(await ask(world, stream=True))
    assert chunk["choices"][0]["text"] == "one"
    check_error_body(error, 500)


async def test_a_stream_left_early_frees_all_its_places(open_world: OpenWorld) -> None:
    engine = FakeEngine(script=lambda *_: [step for delta in say(*["word "] * 1000) for step in (delta, 0.01)])
    async with open_world(live=True, engine=engine) as world:
        body = {"model": MODEL, "prompt": ["a", "b"], "stream": True}
        async with world.client.stream("POST", "/v1/completions", json=body) as response:
            async for _ in response.aiter_lines():
                break
        await until(lambda: len(engine.aborted) == 2)


def scored(*pieces: tuple[int, str]) -> FakeEngine:
    """An engine that says these tokens; the text of each is what becomes visible with it."""

    def script(_: Prompt, limits: SamplingParams) -> list[Step]:
        deltas: list[Step] = []
        for number, (token_id, text) in enumerate(pieces):
            alternatives = [TokenLogprob(token_id, -0.5), TokenLogprob(0, -1.0)][: limits.logprobs]
            position = PositionLogprobs(TokenLogprob(token_id, -0.5), alternatives)
            last = number == len(pieces) - 1
            deltas.append(Delta(0, text, [token_id], [position], finish_reason="stop" if last else None))
        return deltas

    return FakeEngine(script=script)


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode([UserText(text)], []).token_ids


async def logprobs_of(world: ServerFixture, *, stream: bool, **fields: Any) -> dict[str, Any]:
    """The `logprobs` object, put together from its chunks where streamed."""
    response = await ask(world, stream=stream, **fields)
    if not stream:
        whole: dict[str, Any] = response.json()["choices"][0]["logprobs"]
        return whole
    joined: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for chunk in events(response):
        for name, values in (chunk["choices"][0]["logprobs"] or {}).items():
            joined[name] += values
    return joined


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_tell_where_each_token_begins(open_world: OpenWorld, tokenizer: Tokenizer, stream: bool) -> None:
    ids = ids_of(tokenizer, "é, 🦊 ok")
    done = b""
    pieces, offsets, names = [], [], []
    for token_id in ids:
        before = done.decode("utf-8", "ignore")
        data = tokenizer.token_bytes(token_id)
        done += data
        pieces.append((token_id, done.decode("utf-8", "ignore")[len(before) :]))
        offsets.append(len(before))
        try:
            names.append(data.decode())
        except UnicodeDecodeError:
            names.append("bytes:" + "".join(f"\\x{byte:02x}" for byte in data))
    assert any(name.startswith("bytes:") for name in names)
    end = tokenizer.special_id("<|im_end|>")
    assert end is not None
    async with open_world(engine=scored(*pieces, (end, ""))) as world:
        logprobs = await logprobs_of(world, stream=stream, logprobs=2)
    assert logprobs["tokens"] == names and logprobs["text_offset"] == offsets
    assert logprobs["token_logprobs"] == [-0.5] * len(ids)
    assert logprobs["top_logprobs"] == [{name: -0.5, "!": -1.0} for name in names]


async def test_no_alternatives_leave_the_token_itself(open_world: OpenWorld, tokenizer: Tokenizer) -> None:
    async with open_world(engine=scored((0, "!"))) as world:
        logprobs = await logprobs_of(world, stream=False, logprobs=0)
    assert logprobs == {"tokens": ["!"], "token_logprobs": [-0.5], "top_logprobs": [{"!": -0.5}], "text_offset": [0]}


@pytest.mark.parametrize(("skip", "offset"), [(True, 1), (False, 1 + len("<|im_start|>"))])
async def test_a_control_token_takes_room_only_where_it_is_shown(
    open_world: OpenWorld, tokenizer: Tokenizer, skip: bool, offset: int
) -> None:
    start = tokenizer.special_id("<|im_start|>")
    assert start is not None
    engine = scored((0, "!"), (start, "" if skip else "<|im_start|>"), (1, '"'))
    async with open_world(engine=engine) as world:
        logprobs = await logprobs_of(world, stream=False, logprobs=0, skip_special_tokens=skip)
    assert logprobs["text_offset"] == [0, 1, offset]


async def test_each_choice_has_offsets_of_its_own(open_world: OpenWorld) -> None:
    def script(_: Prompt, limits: SamplingParams) -> list[Step]:
        position = PositionLogprobs(TokenLogprob(0, -0.5), [])
        return [
            Delta(index, "!", [0], [position], finish_reason="length" if last else None)
            for last in (False, True)
            for index in range(limits.n)
        ]

    async with open_world(engine=FakeEngine(script=script)) as world:
        whole = (await ask(world, n=2, logprobs=0)).json()
        chunks = events(await ask(world, n=2, logprobs=0, stream=True))
    assert [choice["logprobs"]["text_offset"] for choice in whole["choices"]] == [[0, 1], [0, 1]]
    assert [choice["finish_reason"] for choice in whole["choices"]] == ["length", "length"]
    offsets: list[list[int]] = [[], []]
    for chunk in chunks:
        choice = chunk["choices"][0]
        offsets[choice["index"]] += (choice["logprobs"] or {"text_offset": []})["text_offset"]
    assert offsets == [[0, 1], [0, 1]]


async def test_each_tenant_has_a_cache_of_its_own(open_world: OpenWorld) -> None:
    async with open_world(api_key="first,second") as world:
        for key in ("first", "second"):
            world.client.headers["Authorization"] = f"Bearer {key}"
            await ask(world)
    salts = [prompt.cache_salt for prompt in world.engine.prompts]
    assert all(salts) and len(set(salts)) == 2


async def test_is_measured(world: ServerFixture) -> None:
    await ask(world, prompt=["a", "b"])
    text = (await world.client.get("/metrics")).text
    assert "tessera_request_prompt_tokens_count 2.0" in text
    assert "tessera_request_generation_tokens_sum 6.0" in text
    assert "tessera_answer_seconds_count 1.0" in text
