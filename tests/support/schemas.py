"""Random JSON Schemas: half of what the language has, the part that is enforced and the part that is not."""

import random
from typing import Any

UNSUPPORTED: list[dict[str, Any]] = [
    {"type": "number", "multipleOf": 0.3},
    {"type": "array", "items": {"type": "null"}, "uniqueItems": True},
    {"type": "array", "contains": {"const": 1}},
    {"type": "object", "patternProperties": {"^x": {"type": "null"}}},
    {"type": "object", "propertyNames": {"pattern": "^x$"}},
    {"type": "object", "properties": {"a": {"type": "null"}}, "minProperties": 1},
    {"type": "string", "pattern": "^a$", "minLength": 1},
    {"not": {"type": "string"}},
    {"if": {"type": "string"}, "then": {"minLength": 3}},
    {"$ref": "https://example.com/schema.json"},
    {"type": "object", "properties": {"a": {"type": "null"}}, "dependentRequired": {"a": ["b"]}},
]
_NAMES = ("a", "b c", 'q"uote', "line\nbreak", "é", "日本", "", "a/b~c", "$ref", "type", "properties")
_VALUES = ("x", "", 'say "hi"', "back\\slash", "naïve ☃", 0, -7, 1.5, True, False, None, [1, "a"], {"k": [None]})


def random_schema(seed: int, *, depth: int = 3) -> dict[str, Any]:
    """A schema whose answers are finite and short."""
    choose = random.Random(seed)
    schema = _schema(choose, depth)
    if choose.random() < 0.3:
        schema = {
            "$defs": {"node": {**_object(choose, 1), "title": "Node"}},
            "type": "object",
            "properties": {"first": {"$ref": "#/$defs/node"}, "second": schema},
            "required": ["first"],
        }
    return schema


def unsupported_schema(seed: int) -> dict[str, Any]:
    """A schema that is not enforced somewhere inside."""
    choose = random.Random(seed)
    inner = dict(choose.choice(UNSUPPORTED))
    for _ in range(choose.randrange(3)):
        wraps: list[dict[str, Any]] = [
            {"type": "array", "items": inner},
            {"type": "object", "properties": {"deep": inner}},
            {"anyOf": [{"type": "null"}, inner]},
        ]
        inner = choose.choice(wraps)
    return inner


def _schema(choose: random.Random, depth: int) -> dict[str, Any]:
    kinds = ["string", "number", "integer", "boolean", "null", "enum", "const", "types"]
    match choose.choice(kinds + ["object", "array", "anyOf"] * 3 if depth else kinds):
        case "object":
            return _object(choose, depth - 1)
        case "array":
            return _array(choose, depth - 1)
        case "anyOf":
            return {"anyOf": [_schema(choose, depth - 1) for _ in range(choose.randint(1, 3))]}
        case "enum":
            return {"enum": choose.sample(_VALUES, choose.randint(1, 4))}
        case "const":
            return {"const": choose.choice(_VALUES), "description": "Always the same."}
        case "types":
            return {"type": ["integer", "null", "string"], "minimum": -3, "maximum": 40, "maxLength": 3}
        case "string":
            return {"type": "string", **choose.choice(_STRINGS)}
        case "integer":
            low = choose.randint(-300, 300)
            return {"type": "integer", "minimum": low, "exclusiveMaximum": low + choose.randint(1, 500)}
        case "number":
            start = choose.randint(-3000, 3000) / 1000
            return {"type": "number", "minimum": start, "maximum": round(start + choose.randint(1, 5), 3)}
        case kind:
            return {"type": kind}


_STRINGS: tuple[dict[str, Any], ...] = (
    {"minLength": 2, "maxLength": 5},
    {"maxLength": 4},
    {"pattern": "^[A-Z]{2}-[0-9]{3,4}$"},
    {"pattern": "(red|green|blue)( light)?"},
    {"format": "date"},
    {"format": "uuid"},
)


def _object(choose: random.Random, depth: int) -> dict[str, Any]:
    if choose.random() < 0.1:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    names = choose.sample(_NAMES, choose.randint(1, 4))
    properties = {name: _schema(choose, depth) for name in names}
    required = choose.sample(names, choose.randint(0, len(names)))
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _array(choose: random.Random, depth: int) -> dict[str, Any]:
    least = choose.randrange(3)
    if choose.random() < 0.2:
        entries = [_schema(choose, depth) for _ in range(choose.randint(1, 3))]
        return {"type": "array", "prefixItems": entries, "items": False, "minItems": len(entries)}
    most = least + choose.randrange(3)
    return {"type": "array", "items": _schema(choose, depth), "minItems": least, "maxItems": most}
