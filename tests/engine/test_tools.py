"""Calls held to their form: written byte by byte, then by the real engine."""

import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

import jsonschema
import pytest

from model_executor.client.engine_client import EngineClient
from model_executor.engine import Delta, FinishReason, Grammar, RequestRefusedError, SamplingParams
from server.chat.reader import read_request
from server.chat.request import ChatCompletionRequest
from server.core.errors import BadRequestError
from server.tools.parser import ArgumentsPiece, CallPiece, TextPiece, ToolCallParser
from tests.support.fakes import say
from tests.support.grammars import BOMBS, PROMPT, Writer
from tests.support.prompts import collect
from tests.support.schemas import random_schema

pytestmark = pytest.mark.engine


def parameters(seed: int) -> dict[str, Any]:
    """A random schema of arguments."""
    schema = random_schema(seed, depth=2)
    definitions = schema.pop("$defs", {})
    return {
        "$defs": definitions,
        "type": "object",
        "properties": {"value": schema, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["value"],
    }


def tool(name: str, schema: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    given = {} if schema is None else {"parameters": schema}
    return {"type": "function", "function": {"name": name, **given, **fields}}


def grammar(*tools: dict[str, Any], **changes: Any) -> Grammar:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi."}], "tools": list(tools), **changes}
    made = read_request(ChatCompletionRequest.model_validate(body), "").grammar
    assert made is not None
    return made


@dataclass
class Answer:
    text: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Name and arguments of each."""
    finish_reason: FinishReason | None = None
    parser: ToolCallParser = field(default_factory=ToolCallParser)

    def add(self, delta: Delta) -> None:
        self.finish_reason = delta.finish_reason
        for piece in [*self.parser.feed(delta.text), *(self.parser.end() if delta.finish_reason else [])]:
            match piece:
                case TextPiece(text):
                    self.text += text
                case CallPiece(name):
                    self.calls.append((name, ""))
                case ArgumentsPiece(text):
                    name, arguments = self.calls[-1]
                    self.calls[-1] = (name, arguments + text)


def read(text: str) -> Answer:
    answer = Answer()
    answer.add(say(text)[0])
    return answer


def require_valid(answer: Answer, schemas: dict[str, dict[str, Any]]) -> None:
    for name, arguments in answer.calls:
        jsonschema.validate(json.loads(arguments), schemas[name], cls=jsonschema.Draft202012Validator)


def test_forced_calls_are_of_known_functions_with_valid_arguments() -> None:
    writer = Writer()
    for seed in range(20):
        schemas = {"f": parameters(seed), "fg": parameters(seed + 1000), "none": {"maxProperties": 0}}
        tools = [tool("f", schemas["f"]), tool("fg", schemas["fg"]), tool("none")]
        called = set()
        for text in writer.tagged(grammar(*tools, tool_choice="required").value, seed, 4):
            answer = read(text)
            assert not answer.text and answer.calls, text
            called |= {name for name, _ in answer.calls}
            require_valid(answer, schemas)
        assert called <= set(schemas)


def test_one_call_is_the_most_where_it_is() -> None:
    writer = Writer()
    named = {"type": "function", "function": {"name": "g"}}
    for changes, names in (({"parallel_tool_calls": False}, {"f", "g"}), ({"tool_choice": named}, {"g"})):
        value = grammar(tool("f"), tool("g"), **{"tool_choice": "required", **changes}).value
        for text in writer.tagged(value, 1, 40):
            assert [name in names for name, _ in read(text).calls] == [True]


def test_free_text_that_begins_a_call_makes_one() -> None:
    writer = Writer()
    strict, loose = parameters(7), {"type": "object", "properties": {"a": {"type": "number", "multipleOf": 0.3}}}
    value = grammar(tool("f", strict, strict=True), tool("loose", loose)).value
    begun = 'Let me see, 1 < 2.\n<tool_call>\n{"name": "'
    for text in writer.tagged(value, 5, 12, after=f'{begun}f"', until="</tool_call>"):
        answer = read(text)
        assert answer.text == "Let me see, 1 < 2."
        assert [name for name, _ in answer.calls] == ["f"]
        require_valid(answer, {"f": strict})
    assert writer.takes(value, f'{begun}loose", "arguments": {{"a": 1, "b": [null]}}}}\n</tool_call>\nDone.')
    for wrong in ('other"', 'f", "arguments": {}', 'loose", "arguments": 5', 'loose", "arguments": {1', 'f", "more'):
        assert not writer.takes(value, begun + wrong)
    assert not writer.takes(value, "A <tool_call> is")


def test_an_answer_has_its_form_or_calls() -> None:
    writer = Writer()
    schema = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["x"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    kinds = set()
    for text in writer.tagged(grammar(tool("f"), response_format=wanted).value, 3, 20):
        answer = read(text)
        kinds.add(not answer.calls)
        if not answer.calls:
            jsonschema.validate(json.loads(answer.text), schema)
        else:
            assert not answer.text
    assert kinds == {True, False}


async def test_the_engine_writes_calls_with_valid_arguments(engine: EngineClient) -> None:
    num_ended = 0
    for seed in range(12):
        schemas = {"f": parameters(seed), "g": parameters(seed + 50)}
        forced = grammar(
            tool("f", schemas["f"]), tool("g", schemas["g"]), tool_choice="required", parallel_tool_calls=False
        )
        limits = SamplingParams(max_tokens=300, n=2, seed=seed, temperature=1.0, grammar=forced)
        answers = [Answer(), Answer()]
        for delta in await collect(engine, PROMPT, limits):
            answers[delta.index].add(delta)
        for answer in answers:
            if answer.finish_reason == "stop":
                num_ended += 1
                assert not answer.text and len(answer.calls) == 1 and not answer.parser.is_cut
                require_valid(answer, schemas)
            else:
                assert answer.finish_reason == "length"
    assert num_ended >= 18


@pytest.mark.parametrize("max_tokens", [1, 6, 14, 25])
async def test_a_forced_call_that_is_cut_ends_with_length(engine: EngineClient, max_tokens: int) -> None:
    named = {"type": "function", "function": {"name": "f"}}
    schema = {"type": "object", "properties": {"a": {"type": "string", "minLength": 60}}, "required": ["a"]}
    forced = grammar(tool("f", schema), tool_choice=named)
    answer = Answer()
    for delta in await collect(engine, PROMPT, SamplingParams(max_tokens=max_tokens, seed=2, grammar=forced)):
        answer.add(delta)
    assert answer.finish_reason == "length"


async def test_text_may_be_free_where_nothing_must_be_called(engine: EngineClient) -> None:
    limits = SamplingParams(max_tokens=12, seed=2, temperature=1.0)
    free = await collect(engine, PROMPT, limits)
    asked = SamplingParams(max_tokens=12, seed=2, temperature=1.0, grammar=grammar(tool("f")), skip_special_tokens=True)
    assert [d.token_ids for d in await collect(engine, PROMPT, asked)] == [d.token_ids for d in free]


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_bomb_among_the_tools_is_refused_before_the_engine_sees_it(choice: str) -> None:
    schema = {"type": "object", "properties": {"a": json.loads(BOMBS["nested repetitions"])}}
    with pytest.raises(BadRequestError) as caught:
        grammar(tool("f"), tool("g", {**schema, "required": ["a"]}, strict=True), tool_choice=choice)
    assert caught.value.param == "tools[1].function.parameters.properties.a.pattern"


@pytest.mark.parametrize("choice", ["auto", "required"])
async def test_a_bomb_among_the_tools_that_only_compiling_finds_is_refused(engine: EngineClient, choice: str) -> None:
    long_strings = {f"p{i}": {"type": "string", "pattern": f"^[a-zà-ſ]{{0,{4000 + i}}}x$"} for i in range(40)}
    schema = {"type": "object", "properties": long_strings}
    bomb = grammar(tool("f"), tool("g", schema, strict=True), tool_choice=choice)
    with pytest.raises(RequestRefusedError, match="too much time or memory") as caught:
        await collect(engine, PROMPT, SamplingParams(max_tokens=3, grammar=bomb))
    assert caught.value.param == bomb.param
    free = await collect(engine, PROMPT, SamplingParams(max_tokens=3, ignore_eos=True))
    assert free[-1].finish_reason == "length"


async def test_many_tools_are_ready_at_once(engine: EngineClient) -> None:
    choose = random.Random(1)
    tools = [tool(f"tool_{n}", parameters(n), description="x" * choose.randrange(300)) for n in range(128)]
    began_s = time.monotonic()
    limits = SamplingParams(max_tokens=3, ignore_eos=True, grammar=grammar(*tools[:100]))
    assert (await collect(engine, PROMPT, limits))[-1].finish_reason == "length"
    assert time.monotonic() - began_s < 60
