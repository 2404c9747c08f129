"""What a request asks of its answer's form, as the engine's grammar; unsupported forms are refused here. Pure.

How long a grammar takes to compile is checked by the engine process (`model_executor/engine_process/grammar_check.py`).
"""

import json
from typing import Any

from pydantic_core import from_json

from model_executor.engine import Grammar
from server.chat.request import ChatCompletionRequest
from server.core.errors import BadRequestError
from server.structured_output.json_schema import MAX_CHARS, enforceable
from server.structured_output.protocol import StructuredOutputs
from server.structured_output.regex import require_pattern
from server.tools.grammar import calls_grammar

_GRAMMAR_MARK = "::="


def grammar_of(request: ChatCompletionRequest) -> Grammar | None:
    """The grammar every answer to `request` follows, or None for free text.

    Raises:
        BadRequestError: the form is not supported; `param` names the place.
    """
    if request.may_call:
        return calls_grammar(request, _content_schema(request))
    if request.structured_outputs is not None:
        return _of_structured_outputs(request.structured_outputs)
    wanted = request.response_format
    match wanted.type if wanted else "text":
        case "json_object":
            return Grammar(kind="json_object", param="response_format")
        case "json_schema":
            assert wanted is not None and wanted.json_schema is not None
            return _of_schema(wanted.json_schema.schema_, "response_format.json_schema.schema")
        case _:
            return None


def _content_schema(request: ChatCompletionRequest) -> dict[str, Any] | None:
    """The schema of an answer that calls no function, or None where it may be any text."""
    form = request.response_format
    match form.type if form else "text":
        case "json_object":
            return {"type": "object"}
        case "json_schema":
            assert form is not None and form.json_schema is not None
            return enforceable(form.json_schema.schema_, "response_format.json_schema.schema")
        case _:
            return None


def _of_structured_outputs(wanted: StructuredOutputs) -> Grammar:
    (name,) = wanted.given
    param = f"structured_outputs.{name}"
    match name:
        case "json":
            return _of_schema(_parsed(wanted.json_, param), param)
        case "json_object":
            return Grammar(kind="json_object", param=param)
        case "choice":
            return _bounded(Grammar(kind="choice", value=json.dumps(wanted.choice, ensure_ascii=False), param=param))
        case "regex":
            assert wanted.regex is not None
            require_pattern(wanted.regex, param, in_json=False)
            return _bounded(Grammar(kind="regex", value=wanted.regex, param=param))
        case _:
            assert wanted.grammar is not None
            if _GRAMMAR_MARK not in wanted.grammar or "\x00" in wanted.grammar:
                raise BadRequestError(f"'{param}' is not in the GBNF notation ('root ::= …').", param=param)
            return _bounded(Grammar(kind="grammar", value=wanted.grammar, param=param))


def _parsed(schema: str | dict[str, Any] | None, param: str) -> dict[str, Any]:
    if isinstance(schema, str):
        if len(schema) > MAX_CHARS:
            raise BadRequestError(f"'{param}' is longer than {MAX_CHARS} characters.", param=param)
        try:
            schema = from_json(schema, allow_inf_nan=False)
        except ValueError as error:
            raise BadRequestError(f"'{param}' is not JSON.", param=param) from error
    if not isinstance(schema, dict):
        raise BadRequestError(f"'{param}' must be a JSON Schema, which is an object.", param=param, code="invalid_type")
    return schema


def _of_schema(schema: dict[str, Any], param: str) -> Grammar:
    return Grammar(kind="json", value=json.dumps(enforceable(schema, param)), param=param)


def _bounded(grammar: Grammar) -> Grammar:
    if len(grammar.value) > MAX_CHARS:
        raise BadRequestError(f"'{grammar.param}' is longer than {MAX_CHARS} characters.", param=grammar.param)
    return grammar
