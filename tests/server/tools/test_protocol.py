"""Tools in a request, and calls and results in its history: what is taken, and what is refused by which name."""

from typing import Any

import pytest
from pydantic import ValidationError

from server.chat.request import ChatCompletionRequest
from server.tokenize.protocol import TokenizeRequest
from tests.support.refusals import refused

USER = {"role": "user", "content": "Hi."}


def tool(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def call(id_: str = "c1", name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def caller(*calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": list(calls), **fields}


def result(id_: str = "c1", **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "content": "18", **fields}


def parse(**changes: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"model": "m", "messages": [USER], **changes})


ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [tool("g")]}}
NAMED = {"type": "function", "function": {"name": "g"}}


@pytest.mark.parametrize(
    ("choice", "may", "must", "names"),
    [
        (None, True, False, ["f", "g"]),
        ("auto", True, False, ["f", "g"]),
        ("none", False, False, []),
        ("required", True, True, ["f", "g"]),
        (NAMED, True, True, ["g"]),
        (ALLOWED, True, True, ["g"]),
        ({**ALLOWED, "allowed_tools": {"mode": "auto", "tools": [tool("f"), tool("g")]}}, True, False, ["f", "g"]),
    ],
)
def test_the_choice_says_what_may_and_what_must_be_called(choice: Any, may: bool, must: bool, names: list[str]) -> None:
    request = parse(tools=[tool("f"), tool("g")], tool_choice=choice)
    tools = request.toolset
    assert request.may_call == (tools is not None) == may
    if tools is not None:
        assert tools.must_call == must
        assert [function.name for function in tools.callable_functions] == names
        assert [function.param for function in tools.functions] == [
            "tools[0].function.parameters",
            "tools[1].function.parameters",
        ]


def test_a_named_function_is_called_once_and_others_as_often_as_they_may() -> None:
    def calls_once(**changes: Any) -> bool:
        tools = parse(**changes).toolset
        assert tools is not None
        return tools.calls_once

    assert calls_once(tools=[tool("g")], tool_choice=NAMED)
    assert calls_once(tools=[tool()], parallel_tool_calls=False)
    assert not calls_once(tools=[tool()], tool_choice="required", parallel_tool_calls=None)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": []}, "tools"),
        ({"tools": {}}, "tools"),
        ({"tools": [tool()] * 129}, "tools"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [tool(), {"type": "function", "function": {}}]}, "tools[1].function.name"),
        ({"tools": [tool("")]}, "tools[0].function.name"),
        ({"tools": [tool("a b")]}, "tools[0].function.name"),
        ({"tools": [tool("f" * 65)]}, "tools[0].function.name"),
        ({"tools": [tool("f\n")]}, "tools[0].function.name"),
        ({"tools": [tool("<|im_end|>")]}, "tools[0].function.name"),
        ({"tools": [tool(description=5)]}, "tools[0].function.description"),
        ({"tools": [tool(parameters="{}")]}, "tools[0].function.parameters"),
        ({"tools": [tool(strict="yes")]}, "tools[0].function.strict"),
        ({"tools": [tool(returns={})]}, "tools[0].function.returns"),
        ({"tools": [tool(), tool("g"), tool()]}, "tools[2].function.name"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": "none"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"tools": [tool()], "parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"tools": [tool()], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": 5}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": {}}, "tool_choice.type"),
        ({"tools": [tool()], "tool_choice": {"type": "custom", "custom": {}}}, "tool_choice.type"),
        ({"tools": [tool()], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": [tool()], "tool_choice": NAMED}, "tool_choice.function.name"),
        ({"tools": [tool()], "tool_choice": ALLOWED}, "tool_choice.allowed_tools.tools[0].function.name"),
        (
            {"tools": [tool()], "tool_choice": {**ALLOWED, "allowed_tools": {"mode": "auto", "tools": []}}},
            "tool_choice.allowed_tools.tools",
        ),
        ({"tools": [tool()], "structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ({"tools": [tool()], "ignore_eos": True}, "ignore_eos"),
        ({"tools": [tool()], "min_tokens": 1}, "min_tokens"),
        ({"tools": [tool()], "stop_token_ids": [1]}, "stop_token_ids"),
        ({"tools": [tool()], "include_stop_str_in_output": True}, "include_stop_str_in_output"),
    ],
)  # fmt: skip
def test_refuses_tools_by_the_field_at_fault(body: dict[str, Any], param: str) -> None:
    assert refused(parse, **body).param == param


def test_without_calls_all_goes_that_goes_without_tools() -> None:
    assert parse(tools=[tool()], tool_choice="none", ignore_eos=True)
    assert parse(tools=[tool()], tool_choice="none", structured_outputs={"regex": "a"})


@pytest.mark.parametrize(
    "messages",
    [
        [caller(call()), result()],
        [caller(call(), content=None), result(content=[{"type": "text", "text": "18"}], name="f")],
        [caller(call(), content="Let me look."), result(), {"role": "assistant", "content": "18."}, USER],
        [caller(call("a"), call("b")), result("b"), result("a")],
        [caller(call("a")), result("a"), caller(call("a")), result("a")],
        [caller(call(arguments="no JSON")), result(content="")],
    ],
)
def test_takes_calls_with_their_results_with_or_without_tools(messages: list[dict[str, Any]]) -> None:
    assert parse(messages=[USER, *messages]).messages
    assert parse(messages=[USER, *messages], tools=[tool("g")]).messages
    assert TokenizeRequest.model_validate({"model": "m", "messages": [USER, *messages]})


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([result()], "messages[1].tool_call_id"),
        ([{"role": "assistant", "content": "x"}, result()], "messages[2].tool_call_id"),
        ([caller(call()), USER, result()], "messages[1].tool_calls"),
        ([caller(call())], "messages[1].tool_calls"),
        ([caller(call("a"), call("b")), result("a")], "messages[1].tool_calls"),
        ([caller(call()), result(), result()], "messages[3].tool_call_id"),
        ([caller(call()), result("c2")], "messages[2].tool_call_id"),
        ([caller(call("a")), result("a"), USER, result("a")], "messages[4].tool_call_id"),
        ([caller(call("a"), call("a")), result("a")], "messages[1].tool_calls[1].id"),
        ([caller()], "messages[1].content"),
        ([caller({**call(), "type": "custom"})], "messages[1].tool_calls[0].type"),
        ([caller({**call(), "id": ""})], "messages[1].tool_calls[0].id"),
        ([caller({**call(), "index": "0"})], "messages[1].tool_calls[0].index"),
        ([caller(call(name="a b"))], "messages[1].tool_calls[0].function.name"),
        ([caller(call(arguments={}))], "messages[1].tool_calls[0].function.arguments"),  # type: ignore[arg-type]
        ([{"role": "tool", "content": "x"}], "messages[1].tool_call_id"),
        ([caller(call()), {"role": "tool", "tool_call_id": "c1"}], "messages[2].content"),
        ([caller(call()), result(content=None)], "messages[2].content"),
        (
            [caller(call()), result(content=[{"type": "input_audio"}])],
            "messages[2].content[0].type",
        ),
    ],
)
def test_refuses_calls_and_results_that_do_not_belong_together(messages: list[dict[str, Any]], param: str) -> None:
    assert refused(parse, messages=[USER, *messages]).param == param
    with pytest.raises(ValidationError):
        TokenizeRequest.model_validate({"model": "m", "messages": [USER, *messages]})
