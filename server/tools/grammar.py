"""The grammar that a model's calls of functions follow, and the descriptions of the functions it reads. Pure.

Forced calls, and those of a function that is `strict`, follow the parameters to the letter, or the request is refused.
Other calls follow them where they can be enforced, and are JSON objects where not.
"""

import json
from collections.abc import Mapping
from typing import Any

from model_executor.engine import Grammar
from server.core.errors import BadRequestError
from server.structured_output.json_schema import MAX_CHARS, enforceable
from server.tools.hermes import AFTER_ARGUMENTS, BEFORE_ARGUMENTS, CALL_START
from server.tools.toolset import ToolFunction, Toolset

MAX_TOTAL_CHARS = 4 * MAX_CHARS
"""Longest grammar of all functions together, as JSON text."""

_ANY_OBJECT = {"type": "object"}
_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
_NOT_ENFORCED = "unsupported_value"


def tool_descriptions(tools: Toolset | None) -> list[dict[str, Any]]:
    """What the model reads of its tools, as the Chat API writes them."""
    return [] if tools is None else [_description(function) for function in tools.functions]


def _description(function: ToolFunction) -> dict[str, Any]:
    fields = {"name": function.name, "description": function.description, "parameters": function.parameters}
    return {"type": "function", "function": {name: value for name, value in fields.items() if value is not None}}


def calls_grammar(tools: Toolset, content: Mapping[str, Any] | None = None, *, relaxed: list[str]) -> Grammar:
    """What answers to a request with tools follow: text with calls in it, or calls alone where there must be one.

    Args:
        tools: the functions.
        content: the JSON Schema of an answer that calls none, or None where it may be any text.
        relaxed: takes the paths of keywords that are left out because they cannot be enforced.

    Raises:
        BadRequestError: parameters are no schema of an object, too large, or not enforceable where they must be.
    """
    tags = [_tag(function, relaxed if tools.must_call else None) for function in tools.callable_functions]
    if tools.must_call or content is not None:
        form: dict[str, Any] = {
            "type": "tags_with_separator",
            "tags": tags,
            "separator": "\n",
            "at_least_one": True,
            "stop_after_first": tools.calls_once,
        }
    else:
        form = {
            "type": "triggered_tags",
            "triggers": [CALL_START],
            "tags": tags,
            "stop_after_first": tools.calls_once,
        }
    if content is not None and not tools.must_call:
        form = {"type": "or", "elements": [_json(content), form]}
    value = json.dumps({"type": "structural_tag", "format": form})
    if len(value) > MAX_TOTAL_CHARS:
        raise BadRequestError(
            f"'tools' are longer than {MAX_TOTAL_CHARS} characters together.", param="tools", code="schema_too_large"
        )
    return Grammar(kind="structural_tag", value=value, param="tools")


def _tag(function: ToolFunction, relaxed: list[str] | None) -> dict[str, Any]:
    return {
        "type": "tag",
        "begin": BEFORE_ARGUMENTS % function.name,
        "content": _json(_arguments(function, relaxed)),
        "end": AFTER_ARGUMENTS,
    }


def _arguments(function: ToolFunction, relaxed: list[str] | None) -> dict[str, Any]:
    """The schema that is enforced for a function's arguments; any object for one that need not be called.

    Args:
        function: which.
        relaxed: as `calls_grammar`, where a function must be called.
    """
    param = function.param
    if function.parameters is None:
        return _NO_ARGUMENTS
    if function.parameters.get("type", "object") != "object":
        raise BadRequestError(
            f"'{param}.type' must be 'object'; arguments have names.", param=f"{param}.type", code="invalid_value"
        )
    try:
        return enforceable({"type": "object", **function.parameters}, param, None if function.strict else relaxed)
    except BadRequestError as error:
        if function.strict or relaxed is not None or error.code != _NOT_ENFORCED:
            raise
        return _ANY_OBJECT


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    """JSON with at most one white-space character in a row: models write calls with blanks in them."""
    return {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 1}
