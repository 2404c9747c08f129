"""Fields of a request that the server takes and that change nothing: what they are, and how the client learns of it.

What changes an answer and is not there is refused by name, by the models themselves. Everything else a model does not
declare is left out of the body before it is read, and reported: in the response header and in the access log.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

HEADER = "x-tessera-ignored"
_MAX_CHARS = 1000
"""Longest value of the header."""
_MAX_PATH_CHARS = 200
_UNSAFE = re.compile(r"[^\w.$@:/\[\]-]", re.ASCII)


def paths_of(unknown: Sequence[tuple[Mapping[str, Any], str]], body: Mapping[str, Any]) -> list[str]:
    """The paths of fields that were left out, as `messages[0].mood`, in the order they were found.

    Args:
        unknown: each field's object, a part of `body` itself, and name (`RequestModel` notes them).
        body: what was validated.
    """
    places = dict.fromkeys(id(holder) for holder, _ in unknown)
    found: dict[int, str] = {}
    waiting: list[tuple[str, Any]] = [("", body)]
    while waiting and len(found) < len(places):
        path, value = waiting.pop()
        if isinstance(value, dict):
            if id(value) in places:
                found[id(value)] = path
            waiting += [(_joined(path, name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}[{index}]", inner) for index, inner in enumerate(value)]
    return [_joined(found[id(holder)], name) for holder, name in unknown if id(holder) in found]


def _joined(path: str, name: str) -> str:
    """Cut short, since names may be as long as a body and are repeated for all that is below them."""
    return f"{path}.{name[:_MAX_PATH_CHARS]}".removeprefix(".")[:_MAX_PATH_CHARS]


def header_value(paths: Sequence[str]) -> str:
    """The paths as a header's value: ASCII, separated by commas, with their number where they are too many.

    Args:
        paths: at least one.
    """
    value = ""
    for number, path in enumerate(paths):
        safe = _UNSAFE.sub("?", path)
        if len(value) + len(safe) > _MAX_CHARS:
            return f"{value}, and {len(paths) - number} more"
        value += f", {safe}" if value else safe
    return value
