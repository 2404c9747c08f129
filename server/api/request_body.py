"""Reads a request's body as JSON, strictly, and validates it against a model; unknown fields may be left out.

What it does not: limit its size (`server/middleware/body_limit.py`), or authorize: that comes first
(`server/middleware/authentication.py`), so that no stranger's body is read.
"""

import asyncio
from collections.abc import Mapping
from email.message import Message
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import Request

from model_executor.fair_queue import FairQueue
from server.api.ignored import paths_of
from server.api.validation import refusal
from server.core.concurrency import run_to_completion
from server.core.errors import BadRequestError, TooLargeError

Model = TypeVar("Model", bound=BaseModel)

LARGE_BODY_BYTES = 100_000
"""From this size on, a body waits for its turn, its values are counted, and it is validated in a thread."""
MAX_MARKS = 150_000
"""Values in one body, roughly; parsing so many takes about 50 ms."""
NUM_LARGE_BODIES = 2
"""Large bodies that are parsed at a time; one per client."""
MAX_WAITING_BODIES = 64
_SLICE_BYTES = 1 << 20


def large_body_queue() -> FairQueue:
    """The queue in which large bodies wait for their turn, as `app.state.large_bodies`."""
    return FairQueue(NUM_LARGE_BODIES, max_per_client=1, max_waiting=MAX_WAITING_BODIES)


async def read_json(
    request: Request, model: type[Model], *, context: Mapping[str, Any], blocks: bool, ignored: list[str] | None
) -> Model:
    """The body of `request` as a `model`.

    Args:
        request: whose body.
        model: what to validate it against.
        context: what validators may look up.
        blocks: whether they may have to wait for it, and must not in the event loop.
        ignored: takes the paths of fields that `model` does not declare, which are left out; None refuses them.

    Raises:
        BadRequestError: not JSON by its content type or its content, not an object, or not valid for the model.
        NotFoundError: it names an uploaded file the client does not have.
        TooLargeError: too many bytes or values.
        UnavailableError: what validators look up cannot be reached.
    """
    _require_json(request.headers)
    body = bytearray()  # Starlette would keep it for as long as the answer takes
    async for chunk in request.stream():
        body += chunk
    try:
        if len(body) < LARGE_BODY_BYTES:
            if blocks:
                return await run_to_completion(lambda: _validate(body, model, context, ignored))
            return _validate(body, model, context, ignored)
        large_bodies: FairQueue = request.app.state.large_bodies
        async with large_bodies.place():
            await _require_few_values(body)
            return await run_to_completion(lambda: _validate(body, model, context, ignored))
    finally:
        body.clear()
        if (arrival := getattr(request.state, "arrival", None)) is not None:
            arrival.end()


def _validate(body: bytearray, model: type[Model], context: Mapping[str, Any], ignored: list[str] | None) -> Model:
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequestError(f"The request body is not valid JSON: {error}.", code="invalid_json") from error
    if not isinstance(value, dict):
        raise BadRequestError("The request body must be a JSON object.", code="invalid_json")
    unknown: list[tuple[Mapping[str, Any], str]] = []
    try:
        return model.model_validate(value, context=context if ignored is None else {**context, "ignored": unknown})
    except ValidationError as error:
        raise refusal(error) from error
    finally:
        if ignored is not None and unknown:
            ignored += paths_of(unknown, value)


async def _require_few_values(body: bytearray) -> None:
    """Reject what takes seconds to parse: every value in JSON is next to one of four characters.

    They are counted in texts, too, but no context holds a text with so many. In slices, so that other tasks can run.
    """
    num_marks = 0
    for start in range(0, len(body), _SLICE_BYTES):
        part = body[start : start + _SLICE_BYTES]
        num_marks += len(part) - len(part.translate(None, b",:[{"))
        if num_marks > MAX_MARKS:
            raise TooLargeError(
                f"The request body has too many values: more than {MAX_MARKS} commas, colons, brackets and braces.",
                code="body_too_large",
            )
        await asyncio.sleep(0)


def _require_json(headers: Headers) -> None:
    declared = Message()
    declared["content-type"] = headers.get("content-type", "")
    if declared.get_content_type() != "application/json" or "content-type" not in headers:
        raise BadRequestError("The content type must be application/json.", code="invalid_content_type")
    charset = declared.get_content_charset("utf-8")
    if charset not in ("utf-8", "us-ascii"):
        raise BadRequestError("The charset of the content must be utf-8.", code="invalid_content_type")
    if headers.get("content-encoding", "identity") != "identity":
        raise BadRequestError("Compressed request bodies are not supported.", code="invalid_content_encoding")
