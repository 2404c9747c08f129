"""References of a JSON Schema to parts of itself. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from server.structured_output.keyword_values import entries, refused

DEFINITIONS = ("$defs", "definitions")
"""Where a schema keeps what it refers to."""
_REFERENCE = re.compile(r"#|#/(\$defs|definitions)/([\w.-]+)", re.ASCII)


class References:
    """Of one schema.

    Args:
        schema: as the client sent it.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema

    def target(self, reference: Any, path: str) -> Any:
        """The schema a `$ref` leads to.

        Raises:
            BadRequestError: it leads out of this schema, or nowhere.
        """
        matched = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
        if matched is None:
            raise refused(
                path, "$ref", "must be '#' or lead to an entry of '$defs' or 'definitions' of the same schema"
            )
        if matched.group(1) is None:
            return self._schema
        place = self._schema.get(matched.group(1))
        if not isinstance(place, dict) or matched.group(2) not in place:
            raise refused(path, "$ref", "leads nowhere")
        return place[matched.group(2)]

    def require_progress(self, param: str) -> None:
        """Refuse references that lead to themselves before anything is generated."""
        starts = [self._schema, *(e for place in DEFINITIONS for e in entries(self._schema.get(place)))]
        for start in starts:
            seen: list[int] = []
            waiting = [start]
            while waiting:
                schema = waiting.pop()
                if not isinstance(schema, dict):
                    continue
                waiting += [
                    *entries(schema.get("anyOf")),
                    *entries(schema.get("oneOf")),
                    *entries(schema.get("allOf")),
                ]
                if "$ref" in schema:
                    target = self.target(schema["$ref"], param)
                    if target is start:
                        raise refused(param, "$ref", "leads to itself")
                    if id(target) not in seen:
                        seen.append(id(target))
                        waiting.append(target)
