"""Reads a request's body as JSON, strictly, and validates it against a model; unknown fields may be left out.

What it does not: limit its size (`server/middleware/body_limit.py`), or authorize: that comes first
(`server/middleware/authentication.py`), so that no stranger's body is read.
"""

from collections.abc import Mapping
from email.message import Message
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import Request

from server.api.ignored import drop_unknown
from server.api.validation import refusal
from server.core.errors import BadRequestError

Model = TypeVar("Model", bound=BaseModel)


async def read_json(
    request: Request, model: type[Model], *, context: Mapping[str, Any], ignored: list[str] | None
) -> Model:
    """The body of `request` as a `model`.

    Args:
        request: whose body.
        model: what to validate it against.
        context: what validators may look up.
        ignored: takes the paths of fields that `model` does not declare, which are left out; None refuses them.

    Raises:
        BadRequestError: not JSON by its content type or its content, not an object, or not valid for the model.
        NotFoundError: it names an uploaded file the client does not have.
        TooLargeError: over the limit.
    """
    _require_json(request.headers)
    body = await request.body()
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequestError(f"The request body is not valid JSON: {error}.", code="invalid_json") from error
    if not isinstance(value, dict):
        raise BadRequestError("The request body must be a JSON object.", code="invalid_json")
    while True:
        try:
            return model.model_validate(value, context=context)
        except ValidationError as error:
            dropped = [] if ignored is None else drop_unknown(value, error)
            if ignored is None or not dropped:
                raise refusal(error) from error
            ignored += dropped


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
