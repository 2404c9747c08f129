"""Errors as the Messages API has them: the body of its routes, and the event that ends a stream."""

from typing import Any

from server.api.sse import Event
from server.core.errors import ApiError
from server.messages.response import MessagesError, MessagesErrorDetail

PATH = "/v1/messages"
"""Errors of this route and those below it have this body, whatever raises them."""
_DETAILS = {"thread": {"error_code": "thread_unsupported_request"}}
"""What the official client needs to know of a refused field, to go on without it."""

_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(error: ApiError) -> dict[str, Any]:
    """The error's body."""
    return _error(error).model_dump(exclude_unset=True)


def error_event(error: ApiError) -> Event:
    """The event of an error within a stream."""
    return Event(_error(error).encode(), "error")


def _error(error: ApiError) -> MessagesError:
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    details = {"details": _DETAILS[error.param]} if error.param in _DETAILS else {}
    return MessagesError(type="error", error=MessagesErrorDetail(type=kind, message=error.message, **details))
