"""Checks the tool calls and results in Chat's messages by the rule all APIs share."""

from collections.abc import Iterator, Sequence

from server.prompt.messages import AnyMessage, AssistantMessage, ToolMessage
from server.tools import answered_calls
from server.tools.answered_calls import CallAnswered, CallMade, Step


def require_answered_calls(messages: Sequence[AnyMessage]) -> None:
    """Check it; validators of requests call this.

    Raises:
        PydanticCustomError: as `answered_calls.require_answered_calls`.
    """
    answered_calls.require_answered_calls(_steps(messages), "a message of the role 'tool'")


def _steps(messages: Sequence[AnyMessage]) -> Iterator[Step]:
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        if isinstance(message, ToolMessage):
            yield CallAnswered(message.tool_call_id, f"{place}.tool_call_id")
            continue
        yield None
        calls = message.tool_calls if isinstance(message, AssistantMessage) else None
        for index, call in enumerate(calls or []):
            yield CallMade(call.id, f"{place}.tool_calls[{index}].id", f"{place}.tool_calls")
