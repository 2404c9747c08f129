"""JSON Schemas brought to the part of the language the grammar engine enforces to the letter. Pure.

The engine (xgrammar 0.2.8, tried keyword by keyword) ignores a good deal without a word: keywords next to `enum`,
`$ref` or `anyOf`, `required` names without a property, most of what lacks a `type`. So a schema is rebuilt from what is
known to hold. Unknown keywords and formats are annotations, as JSON Schema has it, and are left out. What is known and
cannot be enforced is refused by name or, where the client does not insist (`strict`), left out and reported. Where
nothing is, what the rebuilt schema allows, the client's allows:

- A type list becomes an `anyOf` of single types, each with the keywords of its own.
- Bounds on a string's length become a pattern, because the engine would let raw control characters through. Such a
  string holds no character that JSON writes with a backslash.
  (A model that writes broken UTF-8 may exceed them: to the engine, an overlong form is one character.)
- An object that names properties has no others.
- `oneOf` is enforced as `anyOf`, and an `allOf` as one schema, references in it followed.
- A string's pattern, format and lengths become one rule (`strings.py`), a number's multiples what can be counted or
  listed (`numbers.py`).
"""

import json
from collections.abc import Mapping
from typing import Any

from server.core.errors import BadRequestError
from server.structured_output.all_of import MAX_DEPTH, AllOf
from server.structured_output.keyword_values import (
    EXACT,
    bounds_of,
    counts_of,
    entries,
    refused,
    require_array,
    require_object,
    require_values,
)
from server.structured_output.numbers import multiples
from server.structured_output.references import DEFINITIONS, References
from server.structured_output.regex import require_pattern
from server.structured_output.strings import one_rule

MAX_CHARS = 64 << 10
"""Longest schema, or other grammar, as JSON text."""

_ANNOTATIONS = frozenset(
    ("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "$schema")
)
_NOT_ENFORCED = frozenset(
    (
        *("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems"),
        *("propertyNames", "patternProperties", "minProperties", "maxProperties", "dependentRequired"),
        *("dependentSchemas", "dependencies", "additionalItems", "unevaluatedItems", "unevaluatedProperties"),
        *("$dynamicRef", "$recursiveRef"),
    )
)
"""Keywords that assert something, each of which only narrows what is allowed."""
_OF_TYPE = {
    "object": frozenset(("properties", "required", "additionalProperties")),
    "array": frozenset(("items", "prefixItems", "minItems", "maxItems")),
    "string": frozenset(("minLength", "maxLength", "pattern", "format")),
    "integer": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
    "number": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}
_STRUCTURE = ("enum", "const", "$ref", "anyOf", "oneOf", "allOf")
_KNOWN = _ANNOTATIONS.union(DEFINITIONS, _STRUCTURE, *_OF_TYPE.values(), ("type",))
_EMPTY: tuple[tuple[str, Any], ...] = (
    ("propertyNames", {"type": "string"}),
    ("propertyNames", {}),
    ("propertyNames", True),
)
"""Keywords and values that assert nothing."""
_ASSERTING = (_KNOWN | _NOT_ENFORCED) - _ANNOTATIONS - frozenset(DEFINITIONS)


def enforceable(schema: Mapping[str, Any], param: str, relaxed: list[str] | None = None) -> dict[str, Any]:
    """The schema that is enforced in place of `schema`.

    Args:
        schema: as the client sent it.
        param: the request field it stands in.
        relaxed: takes the paths of keywords that are left out because they cannot be enforced; None refuses them.

    Raises:
        BadRequestError: it is too large or too deep, uses a keyword that is not enforced, or is no schema.
    """
    _require_depth(schema, param)
    if len(json.dumps(schema)) > MAX_CHARS:
        raise BadRequestError(f"'{param}' is longer than {MAX_CHARS} characters.", param=param, code="schema_too_large")
    return _Rebuilding(schema, param, relaxed).root()


def _require_depth(schema: Any, param: str) -> None:
    level: list[Any] = [schema]
    for _ in range(MAX_DEPTH + 1):
        inner = [value.values() if isinstance(value, dict) else value for value in level]
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
        if not level:
            return
    raise BadRequestError(f"'{param}' nests deeper than {MAX_DEPTH} levels.", param=param, code="schema_too_deep")


class _Rebuilding:
    def __init__(self, schema: Mapping[str, Any], param: str, relaxed: list[str] | None) -> None:
        self._relaxed = relaxed
        self._schema = schema
        self._param = param
        self._references = References(schema)
        self._all_of = AllOf(self._references, _ASSERTING, self._relax)

    def root(self) -> dict[str, Any]:
        rebuilt = self._rebuild(self._schema, self._param, root=True)
        self._references.require_progress(self._param)
        for place in DEFINITIONS:
            if place in self._schema:
                path = f"{self._param}.{place}"
                entries = require_object(self._schema[place], path)
                rebuilt[place] = {name: self._rebuild(entry, f"{path}.{name}") for name, entry in entries.items()}
        return rebuilt

    def _rebuild(self, schema: Any, path: str, *, root: bool = False) -> dict[str, Any]:
        if schema is True:
            return {}
        schema = require_object(schema, path)
        for keyword in schema:
            if keyword in DEFINITIONS and not root:
                raise refused(path, keyword, "is not supported below the root")
            if keyword in _NOT_ENFORCED and (keyword, schema[keyword]) not in _EMPTY:
                self._relax(path, keyword, "is not supported")
        asserted = {
            name: value for name, value in schema.items() if name in _KNOWN - _ANNOTATIONS and name not in DEFINITIONS
        }
        for keyword in _STRUCTURE:
            if keyword in asserted:
                return self._rebuild_single_keyword(keyword, asserted, path)
        return self._rebuild_types(asserted, path)

    def _rebuild_single_keyword(self, keyword: str, asserted: dict[str, Any], path: str) -> dict[str, Any]:
        """A schema that says one thing: which values, what else, or which of several."""
        value = asserted[keyword]
        others = sorted(set(asserted) - {keyword} - ({"type"} if keyword in ("enum", "const") else set()))
        if keyword == "allOf" and (others or len(entries(value)) > 1):
            siblings = [{name: asserted[name] for name in others}] if others else []
            return self._rebuild(self._all_of.merged([*require_array(value, f"{path}.allOf"), *siblings], path), path)
        for name in others:
            self._relax(path, name, f"is not supported next to '{keyword}'")
        if keyword in ("enum", "const"):
            values = [value] if keyword == "const" else require_array(value, f"{path}.enum")
            require_values(values, self._types(asserted, path) if "type" in asserted else None, f"{path}.{keyword}")
            return {"enum": values}
        if keyword == "$ref":
            self._references.target(value, path)
            return {"$ref": value}
        branches = [
            self._rebuild(b, f"{path}.{keyword}[{i}]") for i, b in enumerate(require_array(value, f"{path}.{keyword}"))
        ]
        return branches[0] if len(branches) == 1 else {"anyOf": branches}

    def _relax(self, path: str, keyword: str, fact: str) -> None:
        """Leave a keyword out, if the client lets us."""
        if self._relaxed is None:
            raise refused(path, keyword, fact)
        self._relaxed.append(f"{path}.{keyword}"[:200])

    def _rebuild_types(self, asserted: dict[str, Any], path: str) -> dict[str, Any]:
        names = self._types(asserted, path)
        own: set[str] = set().union(*(_OF_TYPE[name] for name in names))
        for keyword in asserted:
            if keyword != "type" and keyword not in own:
                self._relax(path, keyword, "needs a 'type' that it says something about")
        branches = [self._rebuild_type(name, asserted, path) for name in names]
        return {} if not branches else branches[0] if len(branches) == 1 else {"anyOf": branches}

    def _types(self, asserted: dict[str, Any], path: str) -> list[str]:
        if "type" not in asserted:
            # What says only how an object looks means an object.
            return next(([name] for name in ("object", "array") if asserted and set(asserted) <= _OF_TYPE[name]), [])
        declared = asserted["type"]
        names = declared if isinstance(declared, list) else [declared]
        if not names or any(not isinstance(name, str) or name not in _OF_TYPE for name in names):
            raise refused(path, "type", f"must be, or list, types out of {', '.join(_OF_TYPE)}")
        return list(dict.fromkeys(names))

    def _rebuild_type(self, name: str, asserted: dict[str, Any], path: str) -> dict[str, Any]:
        match name:
            case "object":
                return self._rebuild_object(asserted, path)
            case "array":
                return self._rebuild_array(asserted, path)
            case "string":
                return self._rebuild_string(asserted, path)
            case "integer" | "number":
                return self._rebuild_number(name, asserted, path)
            case _:
                return {"type": name}

    def _rebuild_number(self, name: str, asserted: dict[str, Any], path: str) -> dict[str, Any]:
        bounds = bounds_of(name, asserted, path)
        if "multipleOf" not in asserted:
            return {"type": name, **bounds}
        factor = asserted["multipleOf"]
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < EXACT:
            raise refused(path, "multipleOf", "must be a number above 0 and below 2^53")
        try:
            counted = multiples(name, asserted)
        except ValueError as error:
            raise refused(path, "multipleOf", "has no multiple within the bounds") from error
        if counted is None:
            self._relax(path, "multipleOf", "is enforced for whole numbers up to 1024, or within bounds at both ends")
            return {"type": name, **bounds}
        return counted

    def _rebuild_string(self, asserted: dict[str, Any], path: str) -> dict[str, Any]:
        lengths = counts_of(("minLength", "maxLength"), asserted, path)
        unenforceable: BadRequestError | None = None
        if "pattern" in asserted:
            if not isinstance(asserted["pattern"], str):
                raise refused(path, "pattern", "must be a string")
            try:
                require_pattern(asserted["pattern"], f"{path}.pattern", in_json=True)
            except BadRequestError as error:
                unenforceable = error
        if "format" in asserted and not isinstance(asserted["format"], str):
            raise refused(path, "format", "must be a string")
        rule = one_rule(asserted, lengths, enforces_pattern=unenforceable is None)
        for keyword in rule.left:
            if keyword == "pattern" and unenforceable is not None and self._relaxed is None:
                raise unenforceable
            self._relax(path, keyword, "is not supported next to the string's other rules")
        return rule.schema()

    def _rebuild_object(self, asserted: dict[str, Any], path: str) -> dict[str, Any]:
        properties = require_object(asserted.get("properties", {}), f"{path}.properties")
        required = asserted.get("required", [])
        if required != []:
            require_array(required, f"{path}.required")
        for name in required:
            if not isinstance(name, str) or name not in properties:
                raise refused(path, "required", "must name properties that 'properties' describes")
        more = asserted.get("additionalProperties", True)
        if properties:
            if isinstance(more, dict):
                self._rebuild(more, f"{path}.additionalProperties")
            rebuilt = {name: self._rebuild(entry, f"{path}.properties.{name}") for name, entry in properties.items()}
            needed = list(dict.fromkeys(required))
            return {"type": "object", "properties": rebuilt, "required": needed, "additionalProperties": False}
        if isinstance(more, bool):
            return {"type": "object", "additionalProperties": more and "properties" not in asserted}
        return {"type": "object", "additionalProperties": self._rebuild(more, f"{path}.additionalProperties")}

    def _rebuild_array(self, asserted: dict[str, Any], path: str) -> dict[str, Any]:
        rebuilt: dict[str, Any] = {"type": "array"}
        if "prefixItems" in asserted:
            place = f"{path}.prefixItems"
            entries = require_array(asserted["prefixItems"], place)
            rebuilt["prefixItems"] = [self._rebuild(entry, f"{place}[{i}]") for i, entry in enumerate(entries)]
        items = asserted.get("items", "prefixItems" not in asserted)
        rebuilt["items"] = False if items is False else self._rebuild(items, f"{path}.items")
        return {**rebuilt, **counts_of(("minItems", "maxItems"), asserted, path)}
