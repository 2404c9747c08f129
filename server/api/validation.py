"""A model's validation error as the API's: the first fault, in a sentence that names the field.

Pydantic's error locations hold the tags of unions; the tags are written `<so>` (`server/prompt/messages.py`), so they
can be told from the names and indices of the request and left out.
"""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from server.core.errors import BadRequestError, ClientError, NotFoundError

_TAG = re.compile(r"<\w+>")


def refusal(error: ValidationError, *, prefix: str = "") -> ClientError:
    """The error to answer with.

    Args:
        error: pydantic's; its first entry counts.
        prefix: the field the validated value stands in, or empty for the body.
    """
    detail = error.errors(include_url=False)[0]
    location: list[int | str] = [*([prefix] if prefix else []), *detail["loc"]]
    kind = detail["type"]
    if kind in ("unknown_type", "unknown_role"):
        return _unknown_member(kind.removeprefix("unknown_"), location, detail["input"], detail["msg"])
    context = detail.get("ctx", {})
    if "param" in context:
        location.append(context["param"])
    param = field_name(location)
    if kind == "file_not_found":
        return NotFoundError(f"'{param}': {detail['msg']}", param=param, code="file_not_found")
    if kind == "missing":
        return BadRequestError(f"'{param}' is missing.", param=param, code="missing_required_parameter")
    if kind == "extra_forbidden":
        return BadRequestError(f"'{param}' is not a known parameter.", param=param, code="unknown_parameter")
    return BadRequestError(f"'{param}' {_sentence(detail)}.", param=param, code=_code(kind))


def field_name(location: Sequence[int | str]) -> str:
    """A field as people write it: `messages[2].content[0].image_url`."""
    name = ""
    for step in location:
        if isinstance(step, int):
            name += f"[{step}]"
        elif not _TAG.fullmatch(step):
            name += f".{step}" if name else step
    return name[:200]


def _unknown_member(field: str, location: list[int | str], value: Any, takes: str) -> BadRequestError:
    """A content part, message or item of a kind that is not served (or not an object at all)."""
    param = field_name(location)
    if not isinstance(value, dict):
        return BadRequestError(f"'{param}' must be an object.", param=param, code="invalid_type")
    param += f".{field}"
    if value.get(field) is None:
        return BadRequestError(f"'{param}' is missing.", param=param, code="missing_required_parameter")
    shown = repr(value[field])[:60]
    return BadRequestError(
        f"'{param}' is {shown}, which this server does not support; it {takes}.",
        param=param,
        code="unsupported_value",
    )


def _sentence(detail: ErrorDetails) -> str:
    text = detail["msg"]
    text = re.sub(r"^(Input|String|List|Dictionary|Object) should", "should", text)
    return text.removesuffix(".").replace(" after validation", "")


def _code(kind: str) -> str:
    if kind in ("unsupported_parameter", "unsupported_value"):
        return kind
    return "invalid_type" if kind.endswith("_type") else "invalid_value"
