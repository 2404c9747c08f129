"""Functions in the Responses API over a fake engine: chat's conversation and grammar, other items and events."""

from typing import Any

import openai
import pytest
from openai.types.responses import Response

from tests.support.error_body import check_error
from tests.support.events import response_events
from tests.support.fakes import MODEL, FakeEngine, say
from tests.support.tools import CALL, NOW, OTHER, WEATHER, saying
from tests.support.world import OpenWorld, ServerFixture

FLAT_WEATHER = {"type": "function", **WEATHER["function"]}  # type: ignore[dict-item]
FLAT_NOW = {"type": "function", "name": "now"}


async def test_calls_are_items_beside_what_is_said(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(saying("Let me look.\n", CALL, "\n" + OTHER))) as world:
        answer = (await world.respond(tools=[FLAT_WEATHER, FLAT_NOW], tool_choice="auto")).json()
    Response.model_validate(answer, strict=False)
    message, first, second = answer["output"]
    assert message["content"][0]["text"] == "Let me look." and answer["status"] == "completed"
    assert (first["type"], first["name"], first["arguments"]) == ("function_call", "get_weather", '{"city": "Paris"}')
    assert (second["name"], second["arguments"], second["status"]) == ("now", "{}", "completed")
    assert first["id"].startswith("fc_") and first["call_id"].startswith("call_")
    assert first["call_id"] != second["call_id"]
    assert answer["tools"] == [FLAT_WEATHER, FLAT_NOW] and answer["tool_choice"] == "auto"


async def test_an_answer_of_calls_alone_has_no_message(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(saying(CALL))) as world:
        answer = (await world.respond(tools=[FLAT_WEATHER])).json()
    assert [item["type"] for item in answer["output"]] == ["function_call"]


async def test_an_answer_without_calls_is_as_ever(world: ServerFixture) -> None:
    (item,) = (await world.respond(tools=[FLAT_WEATHER])).json()["output"]
    assert item["content"][0]["text"] == "Hello, world!"


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_a_stream_tells_each_item_from_beginning_to_end(open_world: OpenWorld, size: int) -> None:
    text = f"Well…\n{CALL}\n{OTHER}"
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    async with open_world(engine=FakeEngine(saying(*pieces))) as world:
        found = response_events(await world.respond(tools=[FLAT_WEATHER, FLAT_NOW], stream=True))
        whole = (await world.respond(tools=[FLAT_WEATHER, FLAT_NOW])).json()
    kinds = [event["type"].removeprefix("response.") for event in found]
    once = [kind for number, kind in enumerate(kinds) if kind != (kinds[number - 1] if number else None)]
    call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]
    assert once == [
        *("created", "in_progress", "output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done", *call, *call, "completed"),
    ]
    told = found[-1]["response"]["output"]
    assert [event["item"] for event in found if event["type"] == "response.output_item.done"] == told
    for index, item in enumerate(told[1:], start=1):
        own = [event for event in found if event.get("item_id") == item["id"]]
        assert {event["output_index"] for event in own} == {index}
        *deltas, done = own
        assert "".join(delta["delta"] for delta in deltas) == done["arguments"] == item["arguments"]
        assert done["name"] == item["name"]
    plain = [{key: value for key, value in item.items() if key not in ("id", "call_id")} for item in told]
    assert plain == [
        {key: value for key, value in item.items() if key not in ("id", "call_id")} for item in whole["output"]
    ]


async def test_a_call_that_was_cut_is_incomplete(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(saying("Well.\n", CALL[:50], finish="length"))) as world:
        response = await world.respond(tools=[FLAT_WEATHER], stream=True)
    answer = response_events(response)[-1]["response"]
    message, call = answer["output"]
    assert (answer["status"], message["status"], call["status"]) == ("incomplete", "completed", "incomplete")
    assert '{"city": "Paris"}'.startswith(call["arguments"])


FLAT_CALL = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Paris"}'}
NESTED_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
}


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        (
            [
                {"role": "user", "content": "How is it?"},
                {"role": "assistant", "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}]},
                {**FLAT_CALL, "id": "fc_1", "status": "completed"},
                {**FLAT_CALL, "call_id": "call_2"},
                {"type": "function_call_output", "call_id": "call_1", "output": "Rain."},
                {
                    "type": "function_call_output",
                    "call_id": "call_2",
                    "output": [{"type": "input_text", "text": "Still rain."}],
                },
                {"role": "user", "content": "And tomorrow?"},
            ],
            [
                {"role": "user", "content": "How is it?"},
                {
                    "role": "assistant",
                    "content": "Let me look.",
                    "tool_calls": [NESTED_CALL, {**NESTED_CALL, "id": "call_2"}],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
                {"role": "tool", "tool_call_id": "call_2", "content": "Still rain."},
                {"role": "user", "content": "And tomorrow?"},
            ],
        ),
        (
            [
                {"role": "user", "content": "How is it?"},
                FLAT_CALL,
                {"type": "function_call_output", "call_id": "call_1", "output": "Rain."},
            ],
            [
                {"role": "user", "content": "How is it?"},
                {"role": "assistant", "tool_calls": [NESTED_CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
            ],
        ),
    ],
)
async def test_calls_and_results_come_back_as_chat_takes_them(
    world: ServerFixture, items: list[dict[str, Any]], messages: list[dict[str, Any]]
) -> None:
    assert (await world.respond(input=items, tools=[FLAT_WEATHER])).status_code == 200
    assert (await world.ask(messages=messages, tools=[WEATHER])).status_code == 200
    here, there = world.engine.prompts
    assert here == there


@pytest.mark.parametrize(
    ("flat", "nested"),
    [
        ({}, {}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        ({"tool_choice": "none"}, {"tool_choice": "none"}),
        (
            {"tool_choice": {"type": "function", "name": "now"}},
            {"tool_choice": {"type": "function", "function": {"name": "now"}}},
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "get_weather"}],
                }
            },
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "required",
                        "tools": [{"type": "function", "function": {"name": "get_weather"}}],
                    },
                }
            },
        ),
        ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
    ],
)
async def test_choices_are_enforced_as_chat_enforces_them(
    world: ServerFixture, flat: dict[str, Any], nested: dict[str, Any]
) -> None:
    answer = (await world.respond(tools=[FLAT_WEATHER, FLAT_NOW], max_tool_calls=3, **flat)).json()
    assert (await world.ask(tools=[WEATHER, NOW], **nested)).status_code == 200
    here, there = world.engine.limits
    assert here.grammar == there.grammar and world.engine.prompts[0] == world.engine.prompts[1]
    assert answer["tool_choice"] == flat.get("tool_choice", "auto")
    assert answer["parallel_tool_calls"] is flat.get("parallel_tool_calls", True)


async def test_no_tools_and_an_empty_list_are_the_same(world: ServerFixture) -> None:
    assert (await world.respond(tools=[], tool_choice="auto", parallel_tool_calls=True)).json()["tools"] == []
    assert (await world.respond()).status_code == 200
    assert world.engine.prompts[0] == world.engine.prompts[1]


NAMESPACE = {
    "type": "namespace",
    "name": "clock",
    "description": "Times.",
    "tools": [{"type": "custom", "name": "free"}, FLAT_NOW, FLAT_WEATHER],
}


async def test_functions_of_a_namespace_are_called_by_both_names(open_world: OpenWorld) -> None:
    made = '<tool_call>\n{"name": "clock__now", "arguments": {}}\n</tool_call>'
    async with open_world(engine=FakeEngine(script=lambda *_: say(made))) as world:
        response = await world.respond(tools=[{"type": "web_search"}, NAMESPACE], client_metadata={"a": "b"})
        told = response.headers["x-tessera-ignored"].split(", ")
        assert sorted(told) == ["client_metadata", "tools[0]", "tools[1].tools[0]"]
        answer = response.json()
        Response.model_validate(answer, strict=False)
        (call,) = answer["output"]
        assert (call["name"], call["namespace"]) == ("now", "clock")
        streamed = response_events(await world.respond(tools=[NAMESPACE], stream=True))
        assert streamed[-1]["response"]["output"][0]["namespace"] == "clock"
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "Noon."}
        await world.respond(tools=[NAMESPACE], input=[{"role": "user", "content": "Hi."}, call, result])
        text = world.app.state.service.model().tokenizer.decode(
            world.engine.prompts[-1].token_ids, skip_special_tokens=False
        )
        assert '"name": "clock__now"' in text and made in text and "web_search" not in text
        for chosen in ({"name": "clock__now"}, {"name": "now", "namespace": "clock"}):
            choice = {"type": "function", **chosen}
            assert (await world.respond(tools=[NAMESPACE], tool_choice=choice)).json()["tool_choice"] == choice
            grammar = world.engine.limits[-1].grammar
            assert grammar is not None and "clock__now" in grammar.value and "clock__get" not in grammar.value


OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "Rain."}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": [{"name": "web_search"}]}, "tools[0].type", "missing_required_parameter"),
    ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tool_choice.type", "invalid_value"),
    ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice", "invalid_value"),
    (
        {"tools": [NAMESPACE, FLAT_WEATHER], "tool_choice": {"type": "function", "name": "now"}},
        "tool_choice.name",
        "invalid_value",
    ),
    ({"tools": [NAMESPACE, NAMESPACE]}, "tools[1].tools[1].name", "invalid_value"),
    ({"tools": [WEATHER]}, "tools[0].name", "missing_required_parameter"),
    ({"tools": [FLAT_WEATHER, FLAT_WEATHER]}, "tools[1].name", "invalid_value"),
    ({"tools": [{**FLAT_NOW, "name": "a b"}]}, "tools[0].name", "invalid_value"),
    ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
    ({"tools": [FLAT_NOW], "tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
    ({"tools": [FLAT_NOW], "tool_choice": {"type": "function", "name": "later"}}, "tool_choice.name", "invalid_value"),
    (
        {
            "tools": [FLAT_NOW],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "later"}]},
        },
        "tool_choice.tools[0].name",
        "invalid_value",
    ),
    (
        {"tools": [{**FLAT_NOW, "strict": True, "parameters": {"type": "object", "not": {}}}]},
        "tools[0].parameters.not",
        "unsupported_value",
    ),
    ({"input": [OUTPUT]}, "input[0].call_id", "invalid_value"),
    ({"input": [FLAT_CALL]}, "input[0]", "invalid_value"),
    ({"input": [FLAT_CALL, {"role": "user", "content": "Hi."}]}, "input[0]", "invalid_value"),
    ({"input": [FLAT_CALL, FLAT_CALL]}, "input[1].call_id", "invalid_value"),
    ({"input": [FLAT_CALL, OUTPUT, OUTPUT]}, "input[2].call_id", "invalid_value"),
    (
        {"input": [FLAT_CALL, {**FLAT_CALL, "call_id": "b"}, OUTPUT, {**FLAT_CALL, "call_id": "c"}]},
        "input[1]",
        "invalid_value",
    ),
    ({"input": [{**FLAT_CALL, "arguments": {}}, OUTPUT]}, "input[0].arguments", "invalid_type"),
    (
        {"input": [FLAT_CALL, {**OUTPUT, "output": [{"type": "input_audio"}]}]},
        "input[1].output[0].type",
        "unsupported_value",
    ),
]


@pytest.mark.parametrize(("changes", "param", "code"), REFUSED)
async def test_refusals_have_the_clients_names(
    world: ServerFixture, changes: dict[str, Any], param: str, code: str
) -> None:
    message = check_error(await world.respond(**changes), 400, param=param, code=code)
    assert f"'{param}'" in message and "messages" not in message
    assert not world.engine.prompts


async def test_the_official_client_calls_functions(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(saying(*CALL)), live=True) as world:
        client = openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="unused", max_retries=0)
        async with client:
            asked: Any = {"model": MODEL, "input": "How is it?", "tools": [FLAT_WEATHER]}
            async with client.responses.stream(**asked) as stream:
                deltas = [
                    event.delta async for event in stream if event.type == "response.function_call_arguments.delta"
                ]
                final = await stream.get_final_response()
            (call,) = final.output
            assert call.type == "function_call" and "".join(deltas) == call.arguments == '{"city": "Paris"}'
            back = [{"role": "user", "content": "How is it?"}, call]
            result = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}
            again = await client.responses.create(**{**asked, "input": [*back, result]})
    assert again.output[0].type == "function_call"
