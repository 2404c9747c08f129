"""The output format a request asks for, as the engine's grammar; unsupported formats are refused here. Pure.

How long a grammar takes to compile is checked by the engine process (`model_executor/engine_process/grammar_check.py`).
"""

import json
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from model_executor.engine import Grammar
from server.core.errors import BadRequestError
from server.structured_output.json_schema import MAX_CHARS, enforceable
from server.structured_output.protocol import StructuredOutputs
from server.structured_output.regex import as_engine_reads, require_pattern
from server.tools.grammar import calls_grammar
from server.tools.toolset import Toolset

_GRAMMAR_MARK = "::="


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """The output is JSON."""

    schema: dict[str, Any] | None
    """JSON Schema it satisfies; None: it is any object."""
    param: str
    """The request field the schema, or the wish for JSON, stands in."""
    strict: bool = False
    """Whether a schema that cannot be enforced to the letter is refused, not relaxed."""


def output_grammar(
    json_format: JsonFormat | None,
    tools: Toolset | None = None,
    structured_outputs: StructuredOutputs | None = None,
    *,
    relaxed: list[str],
) -> Grammar | None:
    """The grammar every output of a request follows, or None for free text.

    Args:
        json_format: whether output is JSON.
        tools: functions the model may call; its other text follows `json_format`.
        structured_outputs: the format under vLLM's names; excludes the others.
        relaxed: takes the paths of schemas' keywords that are left out because they cannot be enforced.

    Raises:
        BadRequestError: the format is not supported; `param` names the place.
    """
    if tools is not None:
        return calls_grammar(
            tools, None if json_format is None else _schema_beside_calls(json_format, relaxed), relaxed=relaxed
        )
    if structured_outputs is not None:
        return _of_structured_outputs(structured_outputs)
    if json_format is None:
        return None
    if json_format.schema is None:
        return Grammar(kind="json_object", param=json_format.param)
    return _of_schema(json_format.schema, json_format.param, None if json_format.strict else relaxed)


def _schema_beside_calls(json_format: JsonFormat, relaxed: list[str]) -> dict[str, Any]:
    if json_format.schema is None:
        return {"type": "object"}
    return enforceable(json_format.schema, json_format.param, None if json_format.strict else relaxed)


def _of_structured_outputs(outputs: StructuredOutputs) -> Grammar:
    (name,) = outputs.names
    param = f"structured_outputs.{name}"
    match name:
        case "json":
            return _of_schema(_parsed(outputs.json_, param), param)
        case "json_object":
            return Grammar(kind="json_object", param=param)
        case "choice":
            return _bounded(Grammar(kind="choice", value=json.dumps(outputs.choice, ensure_ascii=False), param=param))
        case "regex":
            assert outputs.regex is not None
            require_pattern(outputs.regex, param, in_json=False)
            return _bounded(Grammar(kind="regex", value=as_engine_reads(outputs.regex), param=param))
        case _:
            assert outputs.grammar is not None
            if _GRAMMAR_MARK not in outputs.grammar or "\x00" in outputs.grammar:
                raise BadRequestError(
                    f"'{param}' is not in the GBNF notation ('root ::= …').", param=param, code="invalid_value"
                )
            return _bounded(Grammar(kind="grammar", value=outputs.grammar, param=param))


def _parsed(schema: str | dict[str, Any] | None, param: str) -> dict[str, Any]:
    if isinstance(schema, str):
        if len(schema) > MAX_CHARS:
            raise BadRequestError(
                f"'{param}' is longer than {MAX_CHARS} characters.", param=param, code="schema_too_large"
            )
        try:
            schema = from_json(schema, allow_inf_nan=False)
        except ValueError as error:
            raise BadRequestError(f"'{param}' is not JSON.", param=param, code="invalid_json") from error
    if not isinstance(schema, dict):
        raise BadRequestError(f"'{param}' must be a JSON Schema, which is an object.", param=param, code="invalid_type")
    return schema


def _of_schema(schema: dict[str, Any], param: str, relaxed: list[str] | None = None) -> Grammar:
    return Grammar(kind="json", value=json.dumps(enforceable(schema, param, relaxed)), param=param)


def _bounded(grammar: Grammar) -> Grammar:
    if len(grammar.value) > MAX_CHARS:
        raise BadRequestError(
            f"'{grammar.param}' is longer than {MAX_CHARS} characters.", param=grammar.param, code="schema_too_large"
        )
    return grammar
