"""The rule for earlier calls, for every API: each is answered at once, and each result belongs to a call."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.api.base_models import conflict

_MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class CallMade:
    """A call of an earlier answer."""

    id: str
    id_param: str
    """The request field of its id."""
    place: str
    """The request field to name where its result is missing."""


@dataclass(frozen=True, slots=True)
class CallAnswered:
    """The result of a call."""

    id: str
    id_param: str
    """The request field of the call's id."""


Step = CallMade | CallAnswered | None
"""What matters of a conversation, in order; None is anything else that is said."""


def require_answered_calls(steps: Iterable[Step], result: str) -> None:
    """Check that calls of one answer are followed by their results, in any order, and by nothing else before.

    Args:
        steps: the conversation.
        result: what the API calls a result, for the refusal: `a message of the role 'tool'`.

    Raises:
        PydanticCustomError: a call without a result, a result without a call, or two calls with one id.
    """
    waiting: dict[str, CallMade] = {}
    answering = False
    for step in steps:
        match step:
            case CallAnswered():
                if waiting.pop(step.id, None) is None:
                    raise conflict(step.id_param, "names no call before it that waits for its result")
                answering = bool(waiting)
            case CallMade() if not answering:
                if step.id in waiting:
                    raise conflict(step.id_param, "is the id of an earlier call")
                waiting[step.id] = step
            case _ if waiting:
                break
    if waiting:
        first, *_ = waiting.values()
        missing = ", ".join(list(waiting)[:_MAX_NAMED])[:200]
        raise conflict(
            first.place, f"must be followed by {result} for each call before anything else; missing: {missing}"
        )
