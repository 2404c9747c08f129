"""What a request may ask of its answer's form, what is refused by name, and what reaches the engine."""

import json
from typing import Any

import pytest

from model_executor.engine import Grammar
from server.chat.reader import read_request
from server.chat.request import ChatCompletionRequest
from server.core.errors import BadRequestError
from server.structured_output.all_of import MAX_DEPTH
from server.structured_output.json_schema import MAX_CHARS, enforceable
from tests.support.error_body import check_error_body
from tests.support.refusals import refused
from tests.support.schemas import random_schema, unsupported_schema
from tests.support.world import ServerFixture

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


def grammar(**changes: Any) -> Grammar | None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi."}], **changes}
    return read_request(ChatCompletionRequest.model_validate(body), "").grammar


def test_free_text_has_no_grammar() -> None:
    assert grammar() is None
    assert grammar(response_format={"type": "text"}) is None
    assert grammar(response_format=None, structured_outputs=None) is None


def test_schema_is_enforced_strict_or_not() -> None:
    grammars = [
        grammar(response_format={**FORMAT, "json_schema": {**FORMAT["json_schema"], "strict": strict}})  # type: ignore[dict-item]
        for strict in (True, False, None)
    ]
    assert all(each == grammars[0] for each in grammars)
    assert grammars[0] is not None and grammars[0].kind == "json"
    assert json.loads(grammars[0].value) == {**SCHEMA, "additionalProperties": False}


@pytest.mark.parametrize(
    ("wanted", "kind", "value"),
    [
        ({"json_object": True}, "json_object", ""),
        ({"regex": "[a-z]+\\.\\d{2}"}, "regex", "[a-z]+\\.\\d{2}"),
        ({"choice": ["yes", "nö"]}, "choice", '["yes", "nö"]'),
        ({"grammar": 'root ::= "a"'}, "grammar", 'root ::= "a"'),
        ({"json": SCHEMA}, "json", json.dumps({**SCHEMA, "additionalProperties": False})),
        ({"json": json.dumps(SCHEMA), "regex": None}, "json", json.dumps({**SCHEMA, "additionalProperties": False})),
    ],
)
def test_takes_constraints_under_their_other_names(wanted: dict[str, Any], kind: str, value: str) -> None:
    made = grammar(structured_outputs=wanted)
    assert made is not None and (made.kind, made.value) == (kind, value)
    assert made.param is not None and made.param.startswith("structured_outputs.")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "text", "json_schema": FORMAT["json_schema"]}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
            "response_format.json_schema.name",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"not": {}}, "strict": True},
                }
            },
            "response_format.json_schema.schema.not",
        ),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"json_object": False}}, "structured_outputs.json_object"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": "[1]"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": '{"minimum": NaN}'}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": "[" * 60_000}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": 5}}, "structured_outputs.json"),
        ({"structured_outputs": {"regex": "a(?=b)"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"regex": "a" * (MAX_CHARS + 1)}}, "structured_outputs.regex"),
        ({"structured_outputs": {"grammar": 'start: "a"'}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "text"}}, "structured_outputs"),
        ({"response_format": {"type": "json_object"}, "ignore_eos": True}, "ignore_eos"),
        ({"response_format": {"type": "json_object"}, "min_tokens": 3}, "min_tokens"),
        ({"structured_outputs": {"regex": "a"}, "stop_token_ids": [7]}, "stop_token_ids"),
        (
            {"structured_outputs": {"regex": "a"}, "include_stop_str_in_output": True},
            "include_stop_str_in_output",
        ),
    ],
    ids=lambda value: json.dumps(value)[:70] if isinstance(value, dict) else None,
)
async def test_refuses_by_name_before_the_engine_is_asked(
    world: ServerFixture, body: dict[str, Any], param: str
) -> None:
    response = await world.ask(**body)
    assert response.status_code == 400
    check_error_body(response.json(), 400, param=param, code=response.json()["error"]["code"])
    assert not world.engine.prompts


async def test_grammar_reaches_the_engine(world: ServerFixture) -> None:
    assert (await world.ask(response_format=FORMAT)).status_code == 200
    (limits,) = world.engine.limits
    assert limits.grammar == grammar(response_format=FORMAT)


@pytest.mark.parametrize("seed", range(60))
def test_random_schemas_are_taken_or_refused_by_what_they_hold(seed: int) -> None:
    assert enforceable(random_schema(seed), "s")
    with pytest.raises(BadRequestError):
        enforceable(unsupported_schema(seed), "s")


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        ({"type": "object", "properties": {"a": {"not": {}}}}, "s.properties.a.not"),
        ({"type": "array", "items": {"uniqueItems": True}}, "s.items.uniqueItems"),
        ({"$defs": {"x": {"type": "number", "multipleOf": 0.2}}}, "s.$defs.x.multipleOf"),
        ({"anyOf": [{"type": "null"}, {"contains": {}}]}, "s.anyOf[1].contains"),
        ({"allOf": [{"type": "null"}, {"type": "string"}]}, "s.allOf"),
        ({"anyOf": []}, "s.anyOf"),
        ({"enum": []}, "s.enum"),
        ({"enum": ["a"], "maxLength": 3}, "s.maxLength"),
        ({"type": "string", "const": 3}, "s.const"),
        ({"const": 2**60}, "s.const"),
        ({"type": "string", "anyOf": [{}]}, "s.type"),
        ({"type": "foo"}, "s.type"),
        ({"type": []}, "s.type"),
        ({"type": [{}], "enum": [1]}, "s.type"),
        ({"minimum": 5}, "s.minimum"),
        ({"type": "string", "minimum": 5}, "s.minimum"),
        ({"type": "integer", "minimum": 0.5}, "s.minimum"),
        ({"type": "number", "minimum": 1e-9}, "s.minimum"),
        ({"type": "number", "minimum": True}, "s.minimum"),
        ({"type": "string", "pattern": "^a$", "minLength": 3}, "s.minLength"),
        ({"type": "string", "pattern": "^a$", "format": "date"}, "s.format"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "s.minLength"),
        ({"type": "string", "maxLength": -1}, "s.maxLength"),
        ({"type": "string", "pattern": 'say "a"'}, "s.pattern"),
        ({"type": "string", "pattern": "a\\\\b"}, "s.pattern"),
        ({"type": "string", "pattern": "a\\nb"}, "s.pattern"),
        ({"type": "string", "pattern": "(?!a)b"}, "s.pattern"),
        ({"type": "string", "pattern": "^(([a-z]{1,99}){1,99}){1,99}$"}, "s.pattern"),
        ({"type": "string", "pattern": "a$b"}, "s.pattern"),
        ({"type": "string", "pattern": "\\bword"}, "s.pattern"),
        ({"type": "string", "pattern": "(a)\\1"}, "s.pattern"),
        ({"type": "object", "required": ["a"]}, "s.required"),
        ({"type": "object", "properties": {"a": {}}, "required": "a"}, "s.required"),
        ({"type": "object", "properties": [1]}, "s.properties"),
        ({"type": "object", "properties": {"a": False}}, "s.properties.a"),
        ({"$ref": "#/$defs/a"}, "s.$ref"),
        ({"$ref": "#"}, "s.$ref"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {}]}}}, "s.$ref"),
        ({"$ref": "http://x/y"}, "s.$ref"),
        ({"type": "object", "properties": {"a": {"$defs": {}}}}, "s.properties.a.$defs"),
    ],
    ids=lambda value: json.dumps(value)[:70] if isinstance(value, dict) else None,
)
def test_names_the_keyword_that_is_not_enforced(schema: dict[str, Any], param: str) -> None:
    assert refused(enforceable, schema, "s").param == param


@pytest.mark.parametrize(
    "pattern", ["^[a-z]+$", "^(a|b)$", "[^a]{2}", "\\d\\.\\w", "(?:ab)+", "[\\]\\-]", "^$", "[$^]"]
)
def test_takes_plain_patterns_as_they_are(pattern: str) -> None:
    assert enforceable({"type": "string", "pattern": pattern}, "s") == {"type": "string", "pattern": pattern}


@pytest.mark.slow
def test_bounds_the_size_and_the_depth() -> None:
    deep: dict[str, Any] = {}
    for _ in range(MAX_DEPTH):
        deep = {"items": deep}
    assert "deeper" in refused(enforceable, {"items": deep}, "s").message
    for _ in range(100_000):
        deep = {"items": deep}
    assert "deeper" in refused(enforceable, deep, "s").message
    assert "longer" in refused(enforceable, {"enum": ["a" * MAX_CHARS]}, "s").message


def test_definitions_may_refer_to_themselves_below_a_property() -> None:
    node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}
    made = enforceable({"$defs": {"node": node}, "$ref": "#/$defs/node"}, "s")
    assert made["$ref"] == "#/$defs/node" and made["$defs"]["node"]["additionalProperties"] is False
