"""The body of every answer that is not a success; `server/core/errors.py` makes it."""

from typing import Literal

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    """The fact, for people."""
    type: str
    """The kind of fault, such as `invalid_request_error`."""
    param: str | None
    """The request field at fault, such as `messages[2].content[0].image_url`."""
    code: str | None
    """A machine-readable code, such as `context_length_exceeded`."""


class ErrorResponse(BaseModel):
    """The error body of the OpenAI API."""

    error: ErrorDetail


class Health(BaseModel):
    """The state of the engine."""

    status: Literal["loading", "ready", "restarting", "failed"]


class UnhealthyResponse(Health):
    """The state of an engine that does not answer now."""

    error: ErrorDetail
