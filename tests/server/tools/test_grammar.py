"""What the model is told of tools, and what its calls are held to."""

import json
from typing import Any

import pytest

from model_executor.engine import Grammar
from server.chat.reader import read_request
from server.chat.request import ChatCompletionRequest
from server.structured_output.json_schema import MAX_CHARS
from server.tools.grammar import MAX_TOTAL_CHARS, tool_descriptions
from tests.support.refusals import refused

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
ENFORCED = {**SCHEMA, "additionalProperties": False}
LOOSE = {"type": "object", "properties": {"a": {"type": "number", "multipleOf": 0.3}}}
ANY_OBJECT = {"type": "object"}


def tool(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def request(*tools: dict[str, Any], **changes: Any) -> ChatCompletionRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi."}], "tools": list(tools), **changes}
    return ChatCompletionRequest.model_validate(body)


def grammar_of(asked: ChatCompletionRequest) -> Grammar | None:
    return read_request(asked, "").grammar


def form(*tools: dict[str, Any], **changes: Any) -> dict[str, Any]:
    grammar = grammar_of(request(*tools, **changes))
    assert grammar is not None and grammar.kind == "structural_tag" and grammar.param == "tools"
    made: dict[str, Any] = json.loads(grammar.value)["format"]
    return made


def schemas(made: dict[str, Any]) -> list[Any]:
    return [tag["content"]["json_schema"] for tag in made["tags"]]


def blamed(*tools: dict[str, Any], **changes: Any) -> str:
    """The field that the refusal of a request names."""
    param = refused(grammar_of, request(*tools, **changes)).param
    assert param is not None
    return param


def test_the_model_is_told_what_it_needs_to_call() -> None:
    asked = request(tool(description="d", parameters=SCHEMA, strict=True), tool("g", description=None))
    assert tool_descriptions(asked.toolset) == [tool(description="d", parameters=SCHEMA), tool("g")]
    assert tool_descriptions(request(tool(), tool_choice="none").toolset) == []


def test_calls_may_be_made_or_must_be() -> None:
    auto = form(tool(parameters=SCHEMA), tool("g"))
    assert (auto["type"], auto["triggers"], auto["stop_after_first"]) == ("triggered_tags", ["<tool_call>"], False)
    forced = form(tool(parameters=SCHEMA), tool("g"), tool_choice="required", parallel_tool_calls=False)
    assert (forced["type"], forced["at_least_one"], forced["stop_after_first"]) == ("tags_with_separator", True, True)
    assert auto["tags"] == forced["tags"]
    assert [tag["begin"] for tag in auto["tags"]] == [
        '<tool_call>\n{"name": "f", "arguments": ',
        '<tool_call>\n{"name": "g", "arguments": ',
    ]
    assert {tag["end"] for tag in auto["tags"]} == {"}\n</tool_call>"}
    only = form(tool(), tool("g"), tool_choice={"type": "function", "function": {"name": "g"}})
    assert [tag["begin"] for tag in only["tags"]] == [auto["tags"][1]["begin"]] and only["stop_after_first"]


@pytest.mark.parametrize(
    ("parameters", "enforced"),
    [
        (None, {"type": "object", "properties": {}, "additionalProperties": False}),
        ({}, {"type": "object", "additionalProperties": True}),
        ({"properties": SCHEMA["properties"], "required": ["a"]}, ENFORCED),
        (SCHEMA, ENFORCED),
        ({**SCHEMA, "$schema": "x", "title": "F"}, ENFORCED),
    ],
)
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_arguments_are_held_to_the_parameters(parameters: Any, enforced: Any, choice: str) -> None:
    assert schemas(form(tool(parameters=parameters), tool_choice=choice)) == [enforced]


def test_what_cannot_be_enforced_is_an_object_unless_it_must_hold() -> None:
    assert schemas(form(tool(parameters=LOOSE), tool("g", parameters=SCHEMA, strict=True))) == [ANY_OBJECT, ENFORCED]
    place = "parameters.properties.a.multipleOf"
    assert blamed(tool(), tool("g", parameters=LOOSE, strict=True)) == f"tools[1].function.{place}"
    relaxed = {**LOOSE, "properties": {"a": {"type": "number"}}, "required": [], "additionalProperties": False}
    assert schemas(form(tool(parameters=LOOSE), tool_choice="required")) == [relaxed]
    named = {"type": "function", "function": {"name": "g"}}
    assert schemas(form(tool(), tool("g", parameters=LOOSE), tool_choice=named)) == [relaxed]
    assert form(tool(parameters=LOOSE), tool("g"), tool_choice=named)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"type": "string"}, "type"),
        ({"type": ["object", "null"]}, "type"),
        ({"type": None}, "type"),
        ({"type": "object", "properties": [1]}, "properties"),
        ({"type": "object", "properties": {"a": 5}}, "properties.a"),
        ({"type": "object", "properties": {"a": {"enum": []}}}, "properties.a.enum"),
        ({"type": "object", "description": "x" * MAX_CHARS}, ""),
    ],
)
def test_refuses_what_is_no_schema_of_arguments(parameters: dict[str, Any], param: str, strict: bool) -> None:
    expected = ".".join(["tools[1].function.parameters", *([param] if param else [])])
    assert blamed(tool(), tool("g", parameters=parameters, strict=strict)) == expected


def test_bounds_what_all_tools_take_together() -> None:
    enum = {"type": "object", "properties": {"a": {"enum": ["x" * (MAX_CHARS // 2)]}}}
    tools = [tool(f"f{number}", parameters=enum) for number in range(2 * MAX_TOTAL_CHARS // MAX_CHARS + 1)]
    assert blamed(*tools) == "tools"
    assert form(*tools[:4])


def test_a_form_of_the_answer_goes_with_tools() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    either = form(tool(), response_format=wanted)
    assert either["type"] == "or"
    said, called = either["elements"]
    assert said["json_schema"] == ENFORCED and called == form(tool(), tool_choice="required")
    assert form(tool(), response_format=wanted, tool_choice="required") == called
    either = form(tool(), response_format={"type": "json_object"})
    assert either["elements"][0]["json_schema"] == ANY_OBJECT
    assert form(tool(), response_format={"type": "text"}) == form(tool())
    bad = {"type": "json_schema", "json_schema": {"name": "n", "schema": LOOSE, "strict": True}}
    assert blamed(tool(), response_format=bad).startswith("response_format.json_schema.schema")


def test_no_calls_no_grammar() -> None:
    assert grammar_of(request(tool(), tool_choice="none")) is None
