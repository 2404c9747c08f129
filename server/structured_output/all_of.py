"""An `allOf` as the one schema that is all of its schemas. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from server.structured_output.keyword_values import refused, require_array, require_object
from server.structured_output.references import References

MAX_DEPTH = 48
"""How deep objects and arrays may nest."""
MAX_PARTS = 200
"""Schemas that all `allOf`s of one schema may lead to; references let few words mean many."""
_LOOSE = frozenset(
    ("pattern", "format", "not", "minLength", "maxLength", "minimum", "maximum", "multipleOf", "minItems", "maxItems")
)
"""Keywords of which the one or the other may be left out."""

Relax = Callable[[str, str, str], None]
"""Leaves a keyword out, if the client lets us: path, keyword, fact."""


class AllOf:
    """Merges the `allOf`s of one schema.

    Args:
        references: of the schema.
        asserting: keywords that assert something.
        relax: for what can be left out.
    """

    def __init__(self, references: References, asserting: frozenset[str], relax: Relax) -> None:
        self._references = references
        self._asserting = asserting
        self._relax = relax
        self._num_parts = 0

    def merged(self, branches: list[Any], path: str) -> dict[str, Any]:
        """Several schemas as the one that is all of them, not rebuilt yet.

        Raises:
            BadRequestError: they lead to themselves or to too many, or contradict each other.
        """
        if path.count(".properties.") > MAX_DEPTH:
            raise refused(path[:150], "allOf", "leads to itself")
        parts = [part for branch in branches for part in self._parts(branch, path, ())]
        merged: dict[str, Any] = {}
        properties: dict[str, Any] = {}
        for part in parts:
            for name, entry in require_object(part.get("properties", {}), f"{path}.allOf.properties").items():
                properties[name] = entry if name not in properties else self._both(properties[name], entry, path)
            for keyword, value in part.items():
                if keyword == "required":
                    needed = [] if value == [] else require_array(value, f"{path}.allOf.required")
                    merged[keyword] = [*merged.get(keyword, []), *needed]
                elif keyword == "additionalProperties":
                    self._require_closed(value, part, parts, path)
                elif keyword != "properties" and merged.setdefault(keyword, value) != value:
                    self._contradict(keyword, path)
        if properties:
            merged["properties"] = properties
        return merged

    def _parts(self, branch: Any, path: str, seen: tuple[int, ...]) -> list[dict[str, Any]]:
        """What a branch of an `allOf` asserts, references and further `allOf`s in it followed."""
        branch = {} if branch is True else require_object(branch, f"{path}.allOf")
        if id(branch) in seen:
            raise refused(path, "$ref", "leads to itself")
        seen = (*seen, id(branch))
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise refused(path, "allOf", f"leads to more than {MAX_PARTS} schemas in all")
        asserted = {name: value for name, value in branch.items() if name in self._asserting}
        inner = require_array(asserted.pop("allOf"), f"{path}.allOf") if "allOf" in asserted else []
        if "$ref" in asserted:
            inner = [self._references.target(asserted.pop("$ref"), path), *inner]
        return [*(part for one in inner for part in self._parts(one, path, seen)), *([asserted] if asserted else [])]

    def _both(self, first: Any, second: Any, path: str) -> Any:
        """A property that is described twice."""
        return first if first == second else {"allOf": [first, second]}

    def _require_closed(self, more: Any, part: dict[str, Any], parts: list[dict[str, Any]], path: str) -> None:
        """Check that a branch that allows no other properties knows those of all branches."""
        if isinstance(more, dict) and more:
            self._relax(path, "allOf", "is supported with 'additionalProperties' true or false")
        known = part.get("properties", {})
        if more is False and any(name not in known for other in parts for name in _entry_names(other)):
            raise refused(path, "allOf", "forbids properties in one schema that another describes")

    def _contradict(self, keyword: str, path: str) -> None:
        """Two branches say something different by one keyword; the first is enforced, if the client lets us."""
        if keyword not in _LOOSE:
            raise refused(path, "allOf", f"has schemas with a different '{keyword}'")
        self._relax(path, "allOf", f"has schemas with a different '{keyword}'")


def _entry_names(schema: Mapping[str, Any]) -> list[str]:
    properties = schema.get("properties", {})
    return list(properties) if isinstance(properties, dict) else []
