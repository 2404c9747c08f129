"""Answers that must have a form: what is enforced, tried byte by byte, then with the real engine."""

import asyncio
import json
import time
from typing import Any

import jsonschema
import pytest

from model_executor.client.engine_client import EngineClient
from model_executor.engine import Grammar, RequestRefusedError, SamplingParams
from server.core.errors import BadRequestError
from server.structured_output.json_schema import enforceable
from tests.support.grammars import BOMBS, PROMPT, Writer
from tests.support.oracle import Oracle
from tests.support.prompts import collect, ids_of, text_of
from tests.support.schemas import random_schema, unsupported_schema

pytestmark = pytest.mark.engine


def schema_grammar(schema: dict[str, Any]) -> Grammar:
    return Grammar(kind="json", value=json.dumps(enforceable(schema, "schema")), param="schema")


def require_valid(text: str, schema: dict[str, Any]) -> None:
    jsonschema.validate(json.loads(text), schema, cls=jsonschema.Draft202012Validator)


def test_whatever_the_enforced_schema_allows_the_given_one_allows() -> None:
    writer = Writer()
    for seed in range(150):
        schema = random_schema(seed)
        for text in writer.answers(enforceable(schema, "schema"), seed, 12):
            try:
                require_valid(text, schema)
            except ValueError as error:
                raise AssertionError(f"{seed}: {text!r} for {json.dumps(schema)}") from error


def test_strings_of_bounded_length_hold_no_raw_control_character() -> None:
    writer = Writer()
    schema = {"type": "string", "minLength": 2, "maxLength": 9}
    for text in writer.answers(enforceable(schema, "schema"), 0, 300):
        require_valid(text, schema)


def test_json_text_has_no_free_white_space() -> None:
    writer = Writer()
    schema = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2}
    for text in writer.answers(enforceable(schema, "schema"), 0, 100):
        assert json.dumps(json.loads(text)) in (text, text.replace(",", ", "))


async def test_answers_of_random_schemas_validate_and_others_are_refused(engine: EngineClient) -> None:
    num_ended = 0
    for seed in range(20):
        schema = random_schema(seed, depth=2)
        limits = SamplingParams(max_tokens=300, seed=seed, temperature=1.0, grammar=schema_grammar(schema))
        deltas = await collect(engine, PROMPT, limits)
        if deltas[-1].finish_reason == "stop":
            num_ended += 1
            require_valid(text_of(deltas), schema)
        with pytest.raises(BadRequestError):
            enforceable(unsupported_schema(seed), "schema")
    assert num_ended >= 15


@pytest.mark.parametrize(
    ("grammar", "expected"),
    [
        (Grammar(kind="choice", value=json.dumps(['say "yes"', 'say "yes"'])), 'say "yes"'),
        (Grammar(kind="regex", value="(ab){3}"), "ababab"),
        (Grammar(kind="grammar", value='root ::= "x" rest\nrest ::= "yz"'), "xyz"),
        (Grammar(kind="json", value=json.dumps(enforceable({"const": {"a": [1, "ü"]}}, "s"))), '{"a":[1,"ü"]}'),
    ],
    ids=lambda value: value.kind if isinstance(value, Grammar) else None,
)
async def test_says_exactly_what_is_allowed(engine: EngineClient, grammar: Grammar, expected: str) -> None:
    deltas = await collect(engine, PROMPT, SamplingParams(max_tokens=64, temperature=1.0, seed=5, grammar=grammar))
    text = text_of(deltas)
    assert text.replace(", ", ",") == expected and deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize("name", ["<|vision_start|>", "<|im_end|>", "<|endoftext|>"])
async def test_special_tokens_count_as_their_names_and_do_not_end_early(
    engine: EngineClient, other_oracle: Oracle, name: str
) -> None:
    (token_id,) = other_oracle.tokenizer.encode(name, add_special_tokens=False)
    pattern = Grammar(kind="regex", value="[<>|_a-z]{16}")
    limits = SamplingParams(max_tokens=32, seed=4, temperature=1.0, logit_bias={token_id: 100.0}, grammar=pattern)
    deltas = await collect(engine, PROMPT, limits)
    assert len(text_of(deltas)) == 16 and deltas[-1].finish_reason == "stop"
    assert name not in text_of(deltas) or name == "<|vision_start|>"


async def test_every_choice_follows_the_grammar(engine: EngineClient) -> None:
    limits = SamplingParams(max_tokens=20, n=3, seed=2, grammar=Grammar(kind="regex", value="[0-9]{4}"), logprobs=2)
    deltas = await collect(engine, PROMPT, limits)
    texts = [text_of(deltas, index) for index in range(3)]
    assert all(len(text) == 4 and text.isdecimal() for text in texts) and len(set(texts)) == 3


async def test_forced_answer_cut_by_its_limit_ends_with_length(engine: EngineClient) -> None:
    limits = SamplingParams(max_tokens=7, seed=1, grammar=Grammar(kind="json_object"))
    schema = schema_grammar({"type": "array", "items": {"type": "integer"}, "minItems": 50})
    for grammar in (limits.grammar, schema):
        cut = SamplingParams(max_tokens=7, seed=1, temperature=1.0, grammar=grammar)
        deltas = await collect(engine, PROMPT, cut)
        if deltas[-1].finish_reason == "stop":  # an object may be empty
            assert json.loads(text_of(deltas)) is not None
        else:
            assert (deltas[-1].finish_reason, len(ids_of(deltas))) == ("length", 7)
    assert deltas[-1].finish_reason == "length"
    free = await collect(engine, PROMPT, SamplingParams(max_tokens=3, ignore_eos=True))
    assert free[-1].finish_reason == "length"


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar(kind="grammar", value="root ::= undefined", param="structured_outputs.grammar"),
        Grammar(kind="grammar", value='root ::= "a" root', param="structured_outputs.grammar"),
        Grammar(kind="grammar", value="root ::= root", param="structured_outputs.grammar"),
        Grammar(kind="regex", value="(a", param="structured_outputs.regex"),
        Grammar(kind="json", value='{"anyOf":[]}', param="structured_outputs.json"),
    ],
    ids=lambda grammar: grammar.value,
)
async def test_wrong_grammars_are_refused_or_harmless(engine: EngineClient, grammar: Grammar) -> None:
    try:
        deltas = await collect(engine, PROMPT, SamplingParams(max_tokens=5, grammar=grammar))
        assert deltas[-1].finish_reason == "length"
    except RequestRefusedError as error:
        assert error.param == grammar.param and "/" not in str(error)
    free = await collect(engine, PROMPT, SamplingParams(max_tokens=3, ignore_eos=True))
    assert free[-1].finish_reason == "length"


@pytest.mark.parametrize("name", BOMBS)
async def test_schema_bomb_is_refused_while_others_are_served(engine: EngineClient, name: str) -> None:
    bomb = Grammar(kind="json", value=BOMBS[name], param="response_format")
    exploding = asyncio.create_task(collect(engine, PROMPT, SamplingParams(max_tokens=3, grammar=bomb)))
    num_served = 0
    while not exploding.done():
        deltas = await collect(engine, PROMPT, SamplingParams(max_tokens=3, ignore_eos=True))
        assert deltas[-1].finish_reason == "length"
        num_served += 1
    with pytest.raises(RequestRefusedError) as caught:
        await exploding
    assert caught.value.param == "response_format" and num_served > 1
    began_s = time.monotonic()
    with pytest.raises(RequestRefusedError):
        await collect(engine, PROMPT, SamplingParams(max_tokens=3, grammar=bomb))
    assert time.monotonic() - began_s < 1, "the verdict is remembered"
