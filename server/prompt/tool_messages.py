"""Checks the tool calls and results in a conversation: each call is answered at once, each result belongs to a call."""

from collections.abc import Sequence

from server.api.base_models import conflict
from server.prompt.messages import AnyMessage, AssistantMessage, ToolMessage


def require_answered_calls(messages: Sequence[AnyMessage]) -> None:
    """Check it; validators of requests call this.

    Raises:
        PydanticCustomError: a call without a result, a result without a call, or two calls with one id.
    """
    open_ids: set[str] = set()
    caller = ""
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        if isinstance(message, ToolMessage):
            if not caller:
                raise conflict(f"{place}.role", "is 'tool', and no message with 'tool_calls' comes before it")
            if message.tool_call_id not in open_ids:
                raise conflict(
                    f"{place}.tool_call_id", f"names no call of '{caller}.tool_calls' that waits for its result"
                )
            open_ids.remove(message.tool_call_id)
            continue
        _require_none(open_ids, caller)
        caller = ""
        if isinstance(message, AssistantMessage) and message.tool_calls:
            caller = place
            for index, call in enumerate(message.tool_calls):
                if call.id in open_ids:
                    raise conflict(f"{place}.tool_calls[{index}].id", "is the id of an earlier call")
                open_ids.add(call.id)
    _require_none(open_ids, caller)


def _require_none(open_ids: set[str], caller: str) -> None:
    if open_ids:
        some = ", ".join(sorted(open_ids)[:3])[:200]
        raise conflict(
            f"{caller}.tool_calls", f"must be followed by a message of the role 'tool' for each call; missing: {some}"
        )
