"""Fields of a request that the server takes and that change nothing: what they are, and how the client is told.

What changes an answer and is not there is refused by name, by the models themselves. Everything else a model does not
declare is left out of the body before it is read, and told: in the response header and in the access log.
"""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from server.api.validation import TAG, field_name

HEADER = "x-tessera-ignored"
_MAX_CHARS = 1000
"""Longest value of the header."""
_UNSAFE = re.compile(r"[^\w.$@:/\[\]-]", re.ASCII)


def drop_unknown(body: dict[str, Any], error: ValidationError) -> list[str]:
    """Take the fields that a model refuses as unknown out of a body.

    Args:
        body: what was validated; it is changed.
        error: what came of it.

    Returns:
        Their paths, as `messages[0].mood`; empty where the error is about something else only.
    """
    details = error.errors(include_url=False, include_context=False, include_input=False)
    unknown = [detail["loc"] for detail in details if detail["type"] == "extra_forbidden"]
    for location in unknown:
        holder: Any = body
        for step in location[:-1]:
            if isinstance(step, int) or not TAG.fullmatch(step):
                holder = holder[step]
        del holder[location[-1]]
    return [f"{field_name(location[:-1])}.{location[-1]}".removeprefix(".") for location in unknown]


def header_value(paths: Sequence[str]) -> str:
    """The paths as a header's value: ASCII, separated by commas, with their number where they are too many.

    Args:
        paths: at least one.
    """
    value = ""
    for number, path in enumerate(paths):
        safe = _UNSAFE.sub("?", path[:200])
        if len(value) + len(safe) > _MAX_CHARS:
            return f"{value}, and {len(paths) - number} more"
        value += f", {safe}" if value else safe
    return value
