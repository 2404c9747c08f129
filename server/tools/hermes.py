"""Qwen's format of tools, which it has from the Hermes models: how they are described, called and answered. Pure.

The tools stand at the end of the system message, a call in the assistant's turn, and its result in a turn of the user.
Everything a client wrote (descriptions, arguments, results) stays client text.

Twin: `server/tools/parser.py` reads the calls a model writes.
Source: the chat template of Qwen2.5-7B-Instruct (`tokenizer_config.json`), whose wording this is.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from model_executor.processor.chatml import DEFAULT_SYSTEM, Call, Message, RenderedTurn, turn_segments
from model_executor.processor.tokenizer import Segment, TemplateText, UserText

CALL_START = "<tool_call>"
CALL_END = "</tool_call>"
BEFORE_ARGUMENTS = f'{CALL_START}\n{{"name": "%s", "arguments": '
"""A call up to its arguments, for the name of a function."""
AFTER_ARGUMENTS = f"}}\n{CALL_END}"

_BEFORE_TOOLS = """

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>"""
_AFTER_TOOLS = """
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""


def plain_turns(turns: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[RenderedTurn]:
    """The conversation with tools, calls and results written out.

    Args:
        turns: the conversation.
        tools: what may be called, as the API describes it.
    """
    written: list[RenderedTurn] = []
    for is_result, run in groupby(turns, lambda turn: turn.role == "tool"):
        group = list(run)
        written += [_results(group)] if is_result else [_spoken(turn) for turn in group]
    if not tools:
        return written
    description: list[Segment] = [TemplateText(_BEFORE_TOOLS)]
    for tool in tools:
        description += [TemplateText("\n"), _json(tool)]
    description.append(TemplateText(_AFTER_TOOLS))
    if written and written[0].role == "system":
        return [RenderedTurn("system", (*written[0].parts, *description)), *written[1:]]
    return [RenderedTurn("system", (TemplateText(DEFAULT_SYSTEM), *description)), *written]


def _spoken(turn: Message) -> RenderedTurn:
    parts = turn_segments(turn)
    for call in turn.calls:
        parts += _call(call, apart=parts not in ([], [UserText("")]))
    return RenderedTurn(turn.role, tuple(parts))


def _call(call: Call, *, apart: bool) -> Iterator[Segment]:
    yield TemplateText(("\n" if apart else "") + BEFORE_ARGUMENTS % call.name)
    yield UserText(call.arguments) if isinstance(call.arguments, str) else _json(call.arguments)
    yield TemplateText(AFTER_ARGUMENTS)


def _results(turns: Sequence[Message]) -> RenderedTurn:
    """What functions returned, as one turn of the user."""
    parts: list[Segment] = []
    for turn in turns:
        start = "\n<tool_response>\n" if parts else "<tool_response>\n"
        parts += [TemplateText(start), *turn_segments(turn), TemplateText("\n</tool_response>")]
    return RenderedTurn("user", tuple(parts))


def _json(value: object) -> UserText:
    """A value as chat templates write it."""
    return UserText(json.dumps(value, ensure_ascii=False))
