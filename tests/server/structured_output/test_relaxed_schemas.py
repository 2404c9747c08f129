"""Schemas as Pydantic, zod and agents write them: relaxed to what is enforced and told, or refused with `strict`."""

from typing import Any

import pytest

from server.core.errors import BadRequestError
from server.structured_output.json_schema import enforceable
from tests.support.world import ServerFixture

OBJECT: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
OTHER: dict[str, Any] = {"type": "object", "properties": {"b": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "plain"),
    [
        ({"type": "string", "min_items": 1, "x-order": 2}, {"type": "string"}),
        ({"type": "string", "format": "path"}, {"type": "string"}),
        ({"oneOf": [OBJECT, OTHER], "discriminator": {"propertyName": "a"}}, {"anyOf": [OBJECT, OTHER]}),
        (
            {"allOf": [OBJECT, OTHER]},
            {"type": "object", "properties": {**OBJECT["properties"], **OTHER["properties"]}, "required": ["a"]},
        ),
        (
            {**OTHER, "allOf": [OBJECT]},
            {"type": "object", "properties": {**OBJECT["properties"], **OTHER["properties"]}, "required": ["a"]},
        ),
    ],
)
def test_what_asserts_nothing_is_left_out_strict_or_not(schema: dict[str, Any], plain: dict[str, Any]) -> None:
    relaxed: list[str] = []
    assert enforceable(schema, "s") == enforceable(schema, "s", relaxed) == enforceable(plain, "s")
    assert relaxed == []


@pytest.mark.parametrize(
    ("schema", "rest", "path"),
    [
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, ("uniqueItems",), "s.uniqueItems"),
        ({"type": "object", "propertyNames": {"enum": ["a"]}}, ("propertyNames",), "s.propertyNames"),
        ({"type": "number", "multipleOf": 0.3}, ("multipleOf",), "s.multipleOf"),
        ({"type": "integer", "multipleOf": 3, "minimum": 0}, ("multipleOf",), "s.multipleOf"),
        ({"type": "string", "pattern": "^(?=a)a$"}, ("pattern",), "s.pattern"),
        ({**OBJECT, "not": {"required": ["b"]}}, ("not",), "s.not"),
        ({**OBJECT, "dependentRequired": {"a": ["b"]}}, ("dependentRequired",), "s.dependentRequired"),
        ({"type": "string", "format": "uri", "minLength": 1, "maxLength": 2083}, ("maxLength",), "s.maxLength"),
        ({"type": "string", "pattern": "^a$", "format": "email"}, ("format",), "s.format"),
    ],
)
def test_what_cannot_be_enforced_is_relaxed_or_refused(
    schema: dict[str, Any], rest: tuple[str, ...], path: str
) -> None:
    relaxed: list[str] = []
    plain = {name: value for name, value in schema.items() if name not in rest}
    assert enforceable(schema, "s", relaxed) == enforceable(plain, "s")
    assert relaxed == [path]
    with pytest.raises(BadRequestError) as refused:
        enforceable(schema, "s")
    assert refused.value.param == path


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [OBJECT, {"type": "object", "properties": {"a": {"type": "null"}}}]},
        {"allOf": [OBJECT, {"type": "string"}]},
        {"allOf": [OBJECT, {"properties": []}]},
        {"allOf": [OBJECT, 5]},
        {"allOf": [OBJECT, {"type": "object", "required": 5}]},
        {"$defs": {"n": OBJECT}, "allOf": [{"$ref": "#/$defs/n"}, {"$ref": "#"}]},
        {"oneOf": [{"$ref": "#"}]},
        {"oneOf": 5},
        {"type": "textual"},
    ],
)
def test_what_is_wrong_is_refused_without_strict(schema: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        enforceable(schema, "s", [])


async def test_the_client_is_told(world: ServerFixture) -> None:
    schema = {**OBJECT, "not": {}}
    chat = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = await world.ask(response_format=chat, x=1)
    assert answer.headers["x-tessera-ignored"] == "x, response_format.json_schema.schema.not"
    answer = await world.respond(text={"format": {"type": "json_schema", "name": "x", "schema": schema}})
    assert answer.headers["x-tessera-ignored"] == "text.format.schema.not"
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    answer = await world.ask(tools=[tool], tool_choice="required")
    assert answer.headers["x-tessera-ignored"] == "tools[0].function.parameters.not"
    assert "x-tessera-ignored" not in (await world.ask(tools=[tool])).headers
