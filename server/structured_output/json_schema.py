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
import re
from collections.abc import Mapping
from typing import Any

from server.core.errors import BadRequestError
from server.structured_output.numbers import multiples
from server.structured_output.regex import require_pattern
from server.structured_output.strings import one_rule

MAX_CHARS = 64 << 10
"""Longest schema, or other grammar, as JSON text."""
MAX_DEPTH = 48
"""How deep objects and arrays may nest."""
MAX_PARTS = 200
"""Schemas that all `allOf`s of one schema may lead to; references let few words mean many."""

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
_DEFINITIONS = ("$defs", "definitions")
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
_KNOWN = _ANNOTATIONS.union(_DEFINITIONS, _STRUCTURE, *_OF_TYPE.values(), ("type",))
_REFERENCE = re.compile(r"#|#/(\$defs|definitions)/([\w.-]+)", re.ASCII)
_EXACT = 1 << 53
_DECIMALS = 6
_MAX_COUNT = 100_000
_EMPTY: tuple[tuple[str, Any], ...] = (
    ("propertyNames", {"type": "string"}),
    ("propertyNames", {}),
    ("propertyNames", True),
)
"""Keywords and values that assert nothing."""
_ASSERTING = (_KNOWN | _NOT_ENFORCED) - _ANNOTATIONS - frozenset(_DEFINITIONS)
_LOOSE = frozenset(
    ("pattern", "format", "not", "minLength", "maxLength", "minimum", "maximum", "multipleOf", "minItems", "maxItems")
)
"""Keywords of which the one or the other may be left out."""
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_TYPES_OF: tuple[tuple[type, frozenset[str]], ...] = (
    (bool, frozenset(("boolean",))),
    (int, frozenset(("integer", "number"))),
    (float, frozenset(("number",))),
    (str, frozenset(("string",))),
    (list, frozenset(("array",))),
    (dict, frozenset(("object",))),
    (type(None), frozenset(("null",))),
)


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
        self._num_parts = 0

    def root(self) -> dict[str, Any]:
        rebuilt = self._rebuild(self._schema, self._param, root=True)
        self._require_progress()
        for place in _DEFINITIONS:
            if place in self._schema:
                path = f"{self._param}.{place}"
                entries = _require_object(self._schema[place], path)
                rebuilt[place] = {name: self._rebuild(entry, f"{path}.{name}") for name, entry in entries.items()}
        return rebuilt

    def _rebuild(self, schema: Any, path: str, *, root: bool = False) -> dict[str, Any]:
        if schema is True:
            return {}
        schema = _require_object(schema, path)
        for keyword in schema:
            if keyword in _DEFINITIONS and not root:
                raise _refused(path, keyword, "is not supported below the root")
            if keyword in _NOT_ENFORCED and (keyword, schema[keyword]) not in _EMPTY:
                self._relax(path, keyword, "is not supported")
        asserted = {
            name: value for name, value in schema.items() if name in _KNOWN - _ANNOTATIONS and name not in _DEFINITIONS
        }
        for keyword in _STRUCTURE:
            if keyword in asserted:
                return self._rebuild_single_keyword(keyword, asserted, path)
        return self._rebuild_types(asserted, path)

    def _rebuild_single_keyword(self, keyword: str, asserted: dict[str, Any], path: str) -> dict[str, Any]:
        """A schema that says one thing: which values, what else, or which of several."""
        value = asserted[keyword]
        others = sorted(set(asserted) - {keyword} - ({"type"} if keyword in ("enum", "const") else set()))
        if keyword == "allOf" and (others or len(_entries(value)) > 1):
            siblings = {name: asserted[name] for name in others}
            return self._merge([*_require_array(value, f"{path}.allOf"), *([siblings] if others else [])], path)
        for name in others:
            self._relax(path, name, f"is not supported next to '{keyword}'")
        if keyword in ("enum", "const"):
            values = [value] if keyword == "const" else _require_array(value, f"{path}.enum")
            _require_values(values, self._types(asserted, path) if "type" in asserted else None, f"{path}.{keyword}")
            return {"enum": values}
        if keyword == "$ref":
            self._target(value, path)
            return {"$ref": value}
        branches = [
            self._rebuild(b, f"{path}.{keyword}[{i}]") for i, b in enumerate(_require_array(value, f"{path}.{keyword}"))
        ]
        return branches[0] if len(branches) == 1 else {"anyOf": branches}

    def _merge(self, branches: list[Any], path: str) -> dict[str, Any]:
        """Several schemas as the one that is all of them."""
        if path.count(".properties.") > MAX_DEPTH:
            raise _refused(path[:150], "allOf", "leads to itself")
        parts = [part for branch in branches for part in self._parts(branch, path, ())]
        merged: dict[str, Any] = {}
        properties: dict[str, Any] = {}
        for part in parts:
            for name, entry in _require_object(part.get("properties", {}), f"{path}.allOf.properties").items():
                properties[name] = entry if name not in properties else self._both(properties[name], entry, path)
            for keyword, value in part.items():
                if keyword == "required":
                    needed = [] if value == [] else _require_array(value, f"{path}.allOf.required")
                    merged[keyword] = [*merged.get(keyword, []), *needed]
                elif keyword == "additionalProperties":
                    self._require_closed(value, part, parts, path)
                elif keyword != "properties" and merged.setdefault(keyword, value) != value:
                    self._contradict(keyword, path)
        if properties:
            merged["properties"] = properties
        return self._rebuild(merged, path)

    def _parts(self, branch: Any, path: str, seen: tuple[int, ...]) -> list[dict[str, Any]]:
        """What a branch of an `allOf` asserts, references and further `allOf`s in it followed."""
        branch = {} if branch is True else _require_object(branch, f"{path}.allOf")
        if id(branch) in seen:
            raise _refused(path, "$ref", "leads to itself")
        seen = (*seen, id(branch))
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise _refused(path, "allOf", f"leads to more than {MAX_PARTS} schemas in all")
        asserted = {name: value for name, value in branch.items() if name in _ASSERTING}
        inner = _require_array(asserted.pop("allOf"), f"{path}.allOf") if "allOf" in asserted else []
        if "$ref" in asserted:
            inner = [self._target(asserted.pop("$ref"), path), *inner]
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
            raise _refused(path, "allOf", "forbids properties in one schema that another describes")

    def _contradict(self, keyword: str, path: str) -> None:
        """Two branches say something different by one keyword; the first is enforced, if the client lets us."""
        if keyword not in _LOOSE:
            raise _refused(path, "allOf", f"has schemas with a different '{keyword}'")
        self._relax(path, "allOf", f"has schemas with a different '{keyword}'")

    def _relax(self, path: str, keyword: str, fact: str) -> None:
        """Leave a keyword out, if the client lets us."""
        if self._relaxed is None:
            raise _refused(path, keyword, fact)
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
            raise _refused(path, "type", f"must be, or list, types out of {', '.join(_OF_TYPE)}")
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
        bounds = _bounds(name, asserted, path)
        if "multipleOf" not in asserted:
            return {"type": name, **bounds}
        factor = asserted["multipleOf"]
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < _EXACT:
            raise _refused(path, "multipleOf", "must be a number above 0 and below 2^53")
        try:
            counted = multiples(name, asserted)
        except ValueError as error:
            raise _refused(path, "multipleOf", "has no multiple within the bounds") from error
        if counted is None:
            self._relax(path, "multipleOf", "is enforced for whole numbers up to 1024, or within bounds at both ends")
            return {"type": name, **bounds}
        return counted

    def _rebuild_string(self, asserted: dict[str, Any], path: str) -> dict[str, Any]:
        lengths = _counts(("minLength", "maxLength"), asserted, path)
        unenforceable: BadRequestError | None = None
        if "pattern" in asserted:
            if not isinstance(asserted["pattern"], str):
                raise _refused(path, "pattern", "must be a string")
            try:
                require_pattern(asserted["pattern"], f"{path}.pattern", in_json=True)
            except BadRequestError as error:
                unenforceable = error
        if "format" in asserted and not isinstance(asserted["format"], str):
            raise _refused(path, "format", "must be a string")
        rule = one_rule(asserted, lengths, enforces_pattern=unenforceable is None)
        for keyword in rule.left:
            if keyword == "pattern" and unenforceable is not None and self._relaxed is None:
                raise unenforceable
            self._relax(path, keyword, "is not supported next to the string's other rules")
        return rule.schema()

    def _rebuild_object(self, asserted: dict[str, Any], path: str) -> dict[str, Any]:
        properties = _require_object(asserted.get("properties", {}), f"{path}.properties")
        required = asserted.get("required", [])
        if required != []:
            _require_array(required, f"{path}.required")
        for name in required:
            if not isinstance(name, str) or name not in properties:
                raise _refused(path, "required", "must name properties that 'properties' describes")
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
            entries = _require_array(asserted["prefixItems"], place)
            rebuilt["prefixItems"] = [self._rebuild(entry, f"{place}[{i}]") for i, entry in enumerate(entries)]
        items = asserted.get("items", "prefixItems" not in asserted)
        rebuilt["items"] = False if items is False else self._rebuild(items, f"{path}.items")
        return {**rebuilt, **_counts(("minItems", "maxItems"), asserted, path)}

    def _target(self, reference: Any, path: str) -> Any:
        matched = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
        if matched is None:
            raise _refused(
                path, "$ref", "must be '#' or lead to an entry of '$defs' or 'definitions' of the same schema"
            )
        if matched.group(1) is None:
            return self._schema
        place = self._schema.get(matched.group(1))
        if not isinstance(place, dict) or matched.group(2) not in place:
            raise _refused(path, "$ref", "leads nowhere")
        return place[matched.group(2)]

    def _require_progress(self) -> None:
        """Refuse references that lead to themselves before anything is generated."""
        starts = [self._schema, *(e for place in _DEFINITIONS for e in _entries(self._schema.get(place)))]
        for start in starts:
            seen: list[int] = []
            waiting = [start]
            while waiting:
                schema = waiting.pop()
                if not isinstance(schema, dict):
                    continue
                waiting += [
                    *_entries(schema.get("anyOf")),
                    *_entries(schema.get("oneOf")),
                    *_entries(schema.get("allOf")),
                ]
                if "$ref" in schema:
                    target = self._target(schema["$ref"], self._param)
                    if target is start:
                        raise _refused(self._param, "$ref", "leads to itself")
                    if id(target) not in seen:
                        seen.append(id(target))
                        waiting.append(target)


def _entry_names(schema: Mapping[str, Any]) -> list[str]:
    properties = schema.get("properties", {})
    return list(properties) if isinstance(properties, dict) else []


def _entries(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _bounds(name: str, asserted: dict[str, Any], path: str) -> dict[str, Any]:
    bounds = {keyword: asserted[keyword] for keyword in _BOUNDS if keyword in asserted}
    for keyword, value in bounds.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _refused(path, keyword, "must be a number")
        if name == "integer" and value != int(value):
            raise _refused(path, keyword, "must be a whole number with the type 'integer'")
        if abs(value) >= _EXACT or round(value, _DECIMALS) != value:
            raise _refused(path, keyword, f"must be below 2^53 and have at most {_DECIMALS} decimals")
    return bounds


def _counts(keywords: tuple[str, str], asserted: dict[str, Any], path: str) -> dict[str, int]:
    counts = {keyword: asserted[keyword] for keyword in keywords if keyword in asserted}
    for keyword, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
            raise _refused(path, keyword, f"must be an integer from 0 to {_MAX_COUNT}")
    least, most = keywords
    if counts.get(least, 0) > counts.get(most, _MAX_COUNT):
        raise _refused(path, least, f"is above '{most}'")
    return counts


def _require_values(values: list[Any], types: list[str] | None, path: str) -> None:
    """Refuse values the engine would write differently, and those the type next to them forbids."""
    for value in values:
        kinds = next(kinds for kind, kinds in _TYPES_OF if isinstance(value, kind))
        if types is not None and kinds.isdisjoint(types):
            raise BadRequestError(f"'{path}' has a value that 'type' forbids.", param=path, code="unsupported_value")
        _require_exact(value, path)


def _require_exact(value: Any, path: str) -> None:
    if isinstance(value, int | float) and abs(value) >= _EXACT:
        raise BadRequestError(
            f"'{path}' has a number of 2^53 or more, which is not supported.", param=path, code="unsupported_value"
        )
    for inner in _entries(value):
        _require_exact(inner, path)


def _require_object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequestError(f"'{path}' must be an object.", param=path[:200], code="invalid_type")
    return value


def _require_array(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise BadRequestError(f"'{path}' must be an array with entries.", param=path[:200], code="invalid_type")
    return value


def _refused(path: str, keyword: str, fact: str) -> BadRequestError:
    param = f"{path}.{keyword}"[:200]
    return BadRequestError(f"'{param}' {fact}.", param=param, code="unsupported_value")
