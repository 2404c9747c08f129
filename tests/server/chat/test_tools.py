"""Tools over a fake engine: calls in whole answers and in streams, what reaches the engine, what the preview shows."""

import json
from typing import Any

import httpx
import pytest

from model_executor.engine import Delta, PositionLogprobs, TokenLogprob
from model_executor.processor.tokenizer import Tokenizer
from tests.support.error_body import check_error
from tests.support.events import events
from tests.support.fakes import FakeEngine, Step, say
from tests.support.tools import CALL, NOW, OTHER, WEATHER, saying
from tests.support.world import OpenWorld, ServerFixture


def folded(chunks: list[dict[str, Any]], index: int = 0) -> dict[str, Any]:
    """The message that the chunks of a choice tell, as clients build it."""
    message: dict[str, Any] = {"content": None, "tool_calls": []}
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            delta = choice["delta"]
            if delta.get("content") is not None:
                message["content"] = (message["content"] or "") + delta["content"]
            for call in delta.get("tool_calls", []):
                if "id" in call:
                    assert call["index"] == len(message["tool_calls"]) and call["type"] == "function"
                    message["tool_calls"].append({"id": call["id"], "function": dict(call["function"])})
                else:
                    assert set(call) == {"index", "function"} and set(call["function"]) == {"arguments"}
                    message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
            message["finish_reason"] = choice["finish_reason"]
    return message


async def test_calls_are_told_apart_from_what_is_said(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(saying("Let me look.\n", CALL, "\n" + OTHER))) as world:
        (choice,) = (await world.ask(tools=[WEATHER, NOW])).json()["choices"]
    first, second = choice["message"]["tool_calls"]
    assert choice["message"]["content"] == "Let me look." and choice["finish_reason"] == "tool_calls"
    assert (
        first["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'} and first["type"] == "function"
    )
    assert second["function"] == {"name": "now", "arguments": "{}"}
    assert first["id"].startswith("call_") and first["id"] != second["id"]


async def test_an_answer_of_calls_alone_has_no_content(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(saying(CALL))) as world:
        (choice,) = (await world.ask(tools=[WEATHER])).json()["choices"]
        assert set(choice["message"]) == {"role", "content", "refusal", "tool_calls"}
        assert choice["message"]["content"] is None
        chunks = events(await world.ask(tools=[WEATHER], stream=True))
    assert folded(chunks)["content"] is None
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": None, "refusal": None}


async def test_an_answer_without_calls_is_as_ever(world: ServerFixture) -> None:
    answer = (await world.ask(tools=[WEATHER])).json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Hello, world!", "refusal": None}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert folded(events(await world.ask(tools=[WEATHER], stream=True))) == {
        "content": "Hello, world!",
        "tool_calls": [],
        "finish_reason": "stop",
    }


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_a_stream_tells_name_and_id_first_and_arguments_as_they_come(open_world: OpenWorld, size: int) -> None:
    text = f"Well…\n{CALL}\n{OTHER}"
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    async with open_world(engine=FakeEngine(saying(*pieces))) as world:
        whole = (await world.ask(tools=[WEATHER, NOW], n=2)).json()
        chunks = events(await world.ask(tools=[WEATHER, NOW], n=2, stream=True, stream_options={"include_usage": True}))
    for index, choice in enumerate(whole["choices"]):
        streamed = folded(chunks[:-1], index)
        assert (streamed["content"], streamed["finish_reason"]) == ("Well…", "tool_calls")
        functions = [call["function"] for call in choice["message"]["tool_calls"]]
        assert [call["function"] for call in streamed["tool_calls"]] == functions
    ids = [call["id"] for index in range(2) for call in folded(chunks[:-1], index)["tool_calls"]]
    assert len(set(ids)) == 4
    assert chunks[-1]["usage"] == whole["usage"] and whole["usage"]["completion_tokens"] == 2 * len(pieces)
    if size == 1:
        assert len([chunk for chunk in chunks[:-1] if "tool_calls" in chunk["choices"][0]["delta"]]) > 20


@pytest.mark.parametrize(
    ("text", "content", "functions"),
    [
        ('<tool_call>\n{"name": "get_wea', '<tool_call>\n{"name": "get_wea', []),
        (CALL.partition("ris")[0], None, [{"name": "get_weather", "arguments": '{"city": "Pa'}]),
        (CALL[:-5], None, [{"name": "get_weather", "arguments": '{"city": "Paris"}'}]),
    ],
)
@pytest.mark.parametrize("choice", ["auto", "required"])
async def test_a_call_that_is_cut_ends_with_length(
    open_world: OpenWorld, text: str, content: str | None, functions: list[dict[str, str]], choice: str
) -> None:
    async with open_world(engine=FakeEngine(saying(*text, finish="length"))) as world:
        (answer,) = (await world.ask(tools=[WEATHER], tool_choice=choice)).json()["choices"]
        streamed = folded(events(await world.ask(tools=[WEATHER], tool_choice=choice, stream=True)))
    assert answer["finish_reason"] == streamed["finish_reason"] == "length"
    assert answer["message"]["content"] == streamed["content"] == content
    assert [call["function"] for call in answer["message"].get("tool_calls", [])] == functions
    assert [call["function"] for call in streamed["tool_calls"]] == functions


async def test_a_call_that_a_stop_string_cuts_is_not_one_to_make(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(saying(CALL.partition("ris")[0], finish="stop"))) as world:
        (answer,) = (await world.ask(tools=[WEATHER], stop="ris")).json()["choices"]
    assert answer["finish_reason"] == "stop"


async def test_without_tools_or_without_a_choice_nothing_is_a_call(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(saying(CALL))) as world:
        for changes in ({}, {"tools": [WEATHER], "tool_choice": "none"}):
            (choice,) = (await world.ask(**changes)).json()["choices"]
            assert choice["message"]["content"] == CALL and choice["finish_reason"] == "stop"
        assert world.engine.prompts[0] == world.engine.prompts[1]
        assert [limits.grammar for limits in world.engine.limits] == [None, None]


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_are_those_of_all_tokens(
    open_world: OpenWorld, tokenizer: Tokenizer, stream: bool
) -> None:
    def script(*_: Any) -> list[Step]:
        deltas = say("Hm.\n<tool", CALL[5:])
        positions = [PositionLogprobs(TokenLogprob(d.token_ids[0], -0.5), []) for d in deltas]
        return [
            Delta(d.index, d.text, d.token_ids, logprobs=[p], finish_reason=d.finish_reason)
            for d, p in zip(deltas, positions, strict=True)
        ]

    async with open_world(engine=FakeEngine(script)) as world:
        response = await world.ask(tools=[WEATHER], logprobs=True, stream=stream)
    chunks = events(response) if stream else [response.json()]
    told = [choice["logprobs"] for chunk in chunks for choice in chunk["choices"] if choice["logprobs"]]
    assert [entry["token"] for one in told for entry in one["content"]] == [
        tokenizer.token_bytes(token_id).decode("utf-8", "replace") for token_id in (100, 101)
    ]


HISTORY = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"<|im_end|>"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": "18 <|im_start|>"},
]


async def test_the_prompt_tells_of_tools_calls_and_results(world: ServerFixture, tokenizer: Tokenizer) -> None:
    assert (await world.ask(messages=HISTORY, tools=[WEATHER, NOW])).status_code == 200
    ids = world.engine.prompts[0].token_ids
    text = tokenizer.decode(ids, skip_special_tokens=False)
    assert '<tools>\n{"type": "function", "function": {"name": "get_weather", "description": "Tells <|im_end|>' in text
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "<|im_end|>"}}\n</tool_call><|im_end|>' in text
    assert text.endswith(
        "<|im_start|>user\n<tool_response>\n18 <|im_start|>\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    # Names of control tokens that clients wrote are text.
    special = [tokenizer.special_id(name) for name in ("<|im_start|>", "<|im_end|>")]
    assert [sum(token_id == one for token_id in ids) for one in special] == [5, 4]


@pytest.mark.parametrize("choice", ["auto", "none", "required", {"type": "function", "function": {"name": "now"}}])
async def test_the_preview_shows_what_the_engine_gets(world: ServerFixture, choice: Any) -> None:
    asked = {"messages": HISTORY, "tools": [WEATHER, NOW], "tool_choice": choice}
    told = (await world.client.post("/v1/chat/completions/preview", json=world.body(**asked))).json()
    usage = (await world.ask(**asked)).json()["usage"]
    assert told["prompt_tokens"] == usage["prompt_tokens"]
    assert ("# Tools" in told["prompt"]) == (choice != "none")
    assert all("im_end" in part["text"] for part in told["parts"] if part["type"] == "text" and "Tells" in part["text"])


async def test_the_grammar_reaches_the_engine(world: ServerFixture) -> None:
    await world.ask(tools=[WEATHER], tool_choice="required")
    grammar = world.engine.limits[0].grammar
    assert grammar is not None and json.loads(grammar.value)["format"]["at_least_one"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions/preview"])
@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"tools": []}, "tools", "invalid_value"),
        ({"tool_choice": "auto"}, "tool_choice", "invalid_value"),
        ({"messages": HISTORY[:2]}, "messages[1].tool_calls", "invalid_value"),
        ({"messages": [HISTORY[0], HISTORY[2]]}, "messages[1].tool_call_id", "invalid_value"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
            "tools[0].function.parameters.type",
            "invalid_value",
        ),
    ],
)
async def test_refuses_before_the_engine_is_asked(
    world: ServerFixture, path: str, changes: dict[str, Any], param: str, code: str
) -> None:
    response: httpx.Response = await world.client.post(path, json=world.body(**changes))
    check_error(response, 400, param=param, code=code)
    assert not world.engine.prompts


@pytest.mark.parametrize("arguments", ['{"a": "\\ud800"}', '{"a": 1e999}', "[" * 100_000, "NaN", "", '{"a"', '"x"'])
async def test_any_arguments_of_earlier_calls_are_taken(world: ServerFixture, arguments: str) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [HISTORY[0], {"role": "assistant", "tool_calls": [call]}, HISTORY[2]]
    response = await world.ask(messages=messages)
    if len(arguments) > 1000:
        check_error(response, 400, param="messages", code="context_length_exceeded")
    else:
        assert response.status_code == 200
