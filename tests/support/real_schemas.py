"""JSON Schemas as programs really send them: made by Pydantic here, and written as zod and agents write them."""

import dataclasses
import datetime
import decimal
import enum
import ipaddress
import pathlib
import uuid
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import (
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    FiniteFloat,
    HttpUrl,
    Json,
    NegativeFloat,
    NonNegativeInt,
    PastDate,
    PositiveInt,
    SecretStr,
    StrictInt,
    StringConstraints,
    TypeAdapter,
    create_model,
)
from typing_extensions import TypedDict

T = TypeVar("T")


class Color(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: int
    y: int


class Movie(TypedDict, total=False):
    name: str
    year: int


@dataclasses.dataclass
class Size:
    width: int
    height: int = 3


class Address(BaseModel):
    """Where somebody lives."""

    street: str = Field(description="With the number.", examples=["Main St 1"])
    city: str
    zip: Annotated[str, StringConstraints(pattern=r"^\d{5}$")]


class Person(BaseModel):
    name: str = Field(min_length=1, max_length=40)
    age: int = Field(ge=0, le=150)
    home: Address
    work: Address | None = None
    tags: list[Color] = Field(default_factory=list, max_length=3)


class Tree(BaseModel):
    value: int
    left: "Tree | None" = None
    right: "Tree | None" = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    barks: bool


class Page(BaseModel, Generic[T]):
    items: list[T]
    total: int


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int
    b: str | None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    first: int = Field(alias="firstName", title="First")
    second: list[Point]


class Pets(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    others: list[Annotated[Cat | Dog, Field(discriminator="kind")]]


_SCALARS: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "literal": Literal["a", "b", 3],
    "enum": Color,
    "int enum": Level,
    "datetime": datetime.datetime,
    "aware": AwareDatetime,
    "date": datetime.date,
    "past date": PastDate,
    "time": datetime.time,
    "timedelta": datetime.timedelta,
    "uuid": uuid.UUID,
    "url": AnyUrl,
    "http url": HttpUrl,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "path": pathlib.Path,
    "bytes": bytes,
    "base64": Base64Bytes,
    "decimal": decimal.Decimal,
    "byte size": ByteSize,
    "secret": SecretStr,
    "json": Json[Any],  # type: ignore[misc]
    "positive": PositiveInt,
    "not negative": NonNegativeInt,
    "negative": NegativeFloat,
    "finite": FiniteFloat,
    "strict": StrictInt,
    "between": Annotated[int, Field(ge=-5, le=5)],
    "below": Annotated[float, Field(lt=1.5)],
    "fives": Annotated[int, Field(multiple_of=5)],
    "minutes": Annotated[int, Field(multiple_of=15, ge=0, lt=60)],
    "halves": Annotated[float, Field(multiple_of=0.5, ge=0, le=5)],
    "even": Annotated[float, Field(multiple_of=2)],
    "short": Annotated[str, StringConstraints(min_length=2, max_length=4)],
    "code": Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}-\d{3}$")],
    "lower": Annotated[str, StringConstraints(pattern=r"^[a-z]+$", min_length=2, max_length=6)],
    "digits": Annotated[str, StringConstraints(pattern=r"^\d{2,}$", max_length=4)],
    "address": Address,
    "size": Size,
}
_SHAPES: dict[str, Any] = {
    "any": Any,
    "none": None,
    "words": dict[str, str],
    "table": dict[str, list[int]],
    "by choice": dict[Literal["a", "b"], int],
    "anything": dict[str, Any],
    "pair": tuple[int, str],
    "numbers": tuple[int, ...],
    "set": set[str],
    "frozen": frozenset[int],
    "one to three": Annotated[list[int], Field(min_length=1, max_length=3)],
    "point": Point,
    "movie": Movie,
    "person": Person,
    "people": list[Person],
    "tree": Tree,
    "pets": Pets,
    "pet": Cat | Dog,
    "page": Page[Cat],
    "closed": Closed,
    "open": Open,
    "aliased": Aliased,
    "nested": dict[str, dict[str, list[Closed]]],
    "several": int | str | list[bool] | None,
}


def pydantic_schemas() -> dict[str, dict[str, Any]]:
    """What Pydantic makes of types: each alone, in a list, and as one that may be missing; and of models."""
    made: dict[str, dict[str, Any]] = {}
    for name, kind in _SCALARS.items():
        for form, annotation in (("", kind), (" list", list[kind]), (" or none", kind | None)):  # type: ignore[valid-type]
            model = create_model("Answer", value=(annotation, ...))
            made[f"pydantic {name}{form}"] = model.model_json_schema()
    for name, kind in _SHAPES.items():
        made[f"pydantic {name}"] = create_model("Answer", value=(kind, ...)).model_json_schema()
    for model in (Person, Tree, Pets, Aliased, Page[Person]):
        made[f"pydantic model {model.__name__}"] = TypeAdapter(model).json_schema(by_alias=True)
    return made


_DATE = (
    r"^(?:(?:\d\d[2468][048]|\d\d[13579][26]|\d\d0[48]|[02468][048]00|[13579][26]00)-02-29|\d{4}-(?:"
    r"(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|(?:02)-(?:0[1-9]|1\d|2[0-8])))"
)
_ZOD: dict[str, dict[str, Any]] = {
    "email": {
        "type": "string",
        "format": "email",
        "pattern": (
            r"^(?:[A-Za-z0-9_'+\-]+\.)*[A-Za-z0-9_'+\-]*[A-Za-z0-9_+-]@(?:[A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
        ),
    },
    "uuid v4": {
        "type": "string",
        "format": "uuid",
        "pattern": "^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12})$",
    },
    "guid": {
        "type": "string",
        "format": "uuid",
        "pattern": "^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})$",
    },
    "datetime offset": {
        "type": "string",
        "format": "date-time",
        "pattern": _DATE + r"T(?:(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|([+-](?:[01]\d|2[0-3]):[0-5]\d)))$",
    },
    "datetime milliseconds": {
        "type": "string",
        "format": "date-time",
        "pattern": _DATE + r"T(?:(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}(?:Z))$",
    },
    "ipv6": {
        "type": "string",
        "format": "ipv6",
        "pattern": (
            "^(([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|([0-9a-fA-F]{1,4}:){1,7}:|([0-9a-fA-F]{1,4}:){1,6}:[0-9a-fA-F]{1,4}"
            "|([0-9a-fA-F]{1,4}:){1,5}(:[0-9a-fA-F]{1,4}){1,2}|([0-9a-fA-F]{1,4}:){1,4}(:[0-9a-fA-F]{1,4}){1,3}"
            "|([0-9a-fA-F]{1,4}:){1,3}(:[0-9a-fA-F]{1,4}){1,4}|([0-9a-fA-F]{1,4}:){1,2}(:[0-9a-fA-F]{1,4}){1,5}"
            "|[0-9a-fA-F]{1,4}:((:[0-9a-fA-F]{1,4}){1,6})|:((:[0-9a-fA-F]{1,4}){1,7}|:))$"
        ),
    },
    "base64": {
        "type": "string",
        "format": "base64",
        "contentEncoding": "base64",
        "pattern": "^$|^(?:[0-9a-zA-Z+/]{4})*(?:(?:[0-9a-zA-Z+/]{2}==)|(?:[0-9a-zA-Z+/]{3}=))?$",
    },
    "hostname": {
        "type": "string",
        "format": "hostname",
        "pattern": (
            r"^(?=.{1,253}\.?$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
            r"(?:\.[a-zA-Z0-9](?:[-0-9a-zA-Z]{0,61}[0-9a-zA-Z])?)*\.?$"
        ),
    },
    "halves": {"type": "number", "multipleOf": 0.5},
    "pattern and length": {"type": "string", "minLength": 2, "maxLength": 5, "pattern": "^a+$"},
    "older email": {
        "type": "string",
        "format": "email",
        "pattern": (
            r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
        ),
    },
    "uuid": {
        "type": "string",
        "format": "uuid",
        "pattern": (
            "^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
            "|00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff)$"
        ),
    },
    "date": {"type": "string", "format": "date", "pattern": f"{_DATE}$"},
    "datetime": {
        "type": "string",
        "format": "date-time",
        "pattern": _DATE + r"T(?:(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z))$",
    },
    "datetime minutes": {
        "type": "string",
        "format": "date-time",
        "pattern": _DATE + r"T(?:(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?(?:Z))$",
    },
    "time": {"type": "string", "pattern": r"^(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?$"},
    "duration": {
        "type": "string",
        "format": "duration",
        "pattern": (r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$"),
    },
    "ipv4": {
        "type": "string",
        "format": "ipv4",
        "pattern": (
            r"^(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9][0-9]|[0-9])\.){3}"
            r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9][0-9]|[0-9])$"
        ),
    },
    "url": {"type": "string", "format": "uri"},
    "nanoid": {"type": "string", "format": "nanoid", "pattern": "^[a-zA-Z0-9_-]{21}$"},
    "ulid": {"type": "string", "format": "ulid", "pattern": "^[0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{26}$"},
    "e164": {"type": "string", "format": "e164", "pattern": r"^\+(?:[0-9]){6,14}[0-9]$"},
    "lowercase": {"type": "string", "format": "lowercase", "pattern": "^[^A-Z]*$"},
    "length": {"type": "string", "minLength": 5, "maxLength": 5},
    "int": {"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991},
    "positive": {"type": "number", "exclusiveMinimum": 0},
    "step": {"type": "integer", "minimum": 0, "maximum": 100, "multipleOf": 10},
    "enum": {"type": "string", "enum": ["a", "b"]},
    "literal": {"type": "string", "const": "x"},
    "null": {"type": "null"},
    "nullable": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "union": {"anyOf": [{"type": "string"}, {"type": "number"}]},
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
    "tuple": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]},
    "record": {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"type": "number"}},
    "unknown": {},
    "discriminated": {
        "oneOf": [
            {
                "type": "object",
                "properties": {"type": {"type": "string", "const": kind}, "value": {"type": value}},
                "required": ["type", "value"],
                "additionalProperties": False,
            }
            for kind, value in (("text", "string"), ("number", "number"))
        ]
    },
    "intersection": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "number"}}, "required": ["b"]},
        ]
    },
    "default": {"default": 3, "type": "integer", "minimum": 0, "maximum": 9, "description": "How many."},
    "bigger": {"type": "object", "properties": {"deep": {"type": "object", "properties": {}}}, "required": ["deep"]},
}
_STRING: dict[str, Any] = {"type": "string"}
_AGENTS: dict[str, dict[str, Any]] = {
    "browser-use": {
        "$defs": {
            "click": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer", "minimum": 0},
                    "xpath": {"anyOf": [_STRING, {"type": "null"}]},
                },
                "required": ["index"],
            },
            "done": {"type": "object", "properties": {"text": _STRING, "success": {"type": "boolean"}}},
        },
        "type": "object",
        "properties": {
            "thinking": _STRING,
            "action": {
                "type": "array",
                "items": {
                    "anyOf": [
                        {"type": "object", "properties": {"click": {"$ref": "#/$defs/click"}}, "required": ["click"]},
                        {"type": "object", "properties": {"done": {"$ref": "#/$defs/done"}}, "required": ["done"]},
                    ]
                },
                "min_items": 1,
                "maxItems": 2,
            },
        },
        "required": ["thinking", "action"],
    },
    "read file": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"path": {**_STRING, "description": "Absolute."}, "limit": {"type": "number", "minimum": 1}},
        "required": ["path"],
        "additionalProperties": False,
    },
    "todo": {
        "type": "object",
        "properties": {
            "todos": {
                "type": "array",
                "maxItems": 2,
                "items": {
                    "type": "object",
                    "properties": {
                        "content": {**_STRING, "minLength": 1},
                        "status": {**_STRING, "enum": ["pending", "in_progress", "completed"]},
                    },
                    "required": ["content", "status"],
                },
            }
        },
        "required": ["todos"],
    },
    "shell": {
        "type": "object",
        "properties": {
            "command": {"type": "array", "items": _STRING, "maxItems": 2},
            "timeout_ms": {"type": "integer", "exclusiveMinimum": 0},
        },
        "required": ["command"],
        "additionalProperties": False,
    },
    "openapi base": {
        "definitions": {
            "Base": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
            "Named": {
                "allOf": [
                    {"$ref": "#/definitions/Base"},
                    {"type": "object", "properties": {"name": _STRING}, "required": ["name"]},
                ]
            },
        },
        "type": "object",
        "properties": {"value": {"allOf": [{"$ref": "#/definitions/Named"}, {"properties": {"note": _STRING}}]}},
        "required": ["value"],
    },
    "optional reference": {
        "$defs": {"Kind": {"type": "string", "enum": ["a", "b"]}},
        "type": "object",
        "properties": {"kind": {"allOf": [{"$ref": "#/$defs/Kind"}], "default": "a", "description": "Which."}},
        "required": ["kind"],
    },
    "types": {"type": "object", "properties": {"v": {"type": ["string", "null"]}}, "required": ["v"]},
    "nothing": {"type": "object", "properties": {}},
    "refined": {
        "type": "object",
        "properties": {"v": {"allOf": [{"type": "integer", "minimum": 0}, {"maximum": 10, "description": "Few."}]}},
        "required": ["v"],
    },
}


def zod_schemas() -> dict[str, dict[str, Any]]:
    """What `z.toJSONSchema` and the AI SDK make of an object with one field."""
    return {
        f"zod {name}": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {"value": schema},
            "required": ["value"],
            "additionalProperties": False,
        }
        for name, schema in _ZOD.items()
    }


def agent_schemas() -> dict[str, dict[str, Any]]:
    """Arguments of tools and answers of agents."""
    return {f"agent {name}": schema for name, schema in _AGENTS.items()}


REAL = {**pydantic_schemas(), **zod_schemas(), **agent_schemas()}
"""All by name."""
