"""Base classes of everything clients send and receive as JSON.

Requests: strict types, explicit null as absence, unknown names refused; also the two refusals a model can state
itself, which `server/api/validation.py` turns, like pydantic's own errors, into the API's error body.

Responses: a field that was not set is left out when encoding, one set to None is written as null; the API needs both.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError


def unsupported_parameter(value: object) -> NoReturn:
    """Refuse a parameter that exists in the API and that this server does not implement."""
    raise PydanticCustomError("unsupported_parameter", "is not supported by this server")


def conflict(param: str, message: str) -> PydanticCustomError:
    """The error of a model whose fields are fine one by one and wrong together.

    Args:
        param: the field to name, relative to the model.
        message: the fact, continuing a sentence that begins with the field's name.
    """
    return PydanticCustomError("invalid_value", "{message}", {"param": param, "message": message})


def _refuse_true(value: Any) -> Any:
    if value is True:
        raise PydanticCustomError("unsupported_value", "is not supported by this server unless it is false")
    return value


def bounded(most: int, least: int = 0) -> Any:
    """The constraint of a list: its number of items, looked at before the items; the first wrong item ends the look."""
    return Field(min_length=least, max_length=most, fail_fast=True)


def at_most(most: int) -> BeforeValidator:
    """The constraint of an object with any names: its number of entries, looked at before the entries."""

    def check(value: object) -> object:
        if isinstance(value, Mapping) and len(value) > most:
            raise PydanticCustomError("too_long", "should have at most {most} entries", {"most": most})
        return value

    return BeforeValidator(check, json_schema_input_type=Any)


MAX_MESSAGES = 4096
"""Messages of a conversation, or items of an input."""
MAX_PARTS = 1024
"""Parts of one message."""
MAX_METADATA = 1024
"""Entries of `metadata`; OpenAI takes 16, and some clients do not count."""
MAX_FRAMES = 8192
"""Frames of a list, from which at most 768 are sampled."""
MAX_TOKEN_IDS = 1 << 20
"""Token ids of one list; no context is that long."""

Unsupported = Annotated[None, BeforeValidator(unsupported_parameter)]
"""Type of a field that must be absent or null; what would change the answer and is not there."""
AlwaysFalse = Annotated[Literal[False], BeforeValidator(_refuse_true)]
"""Type of a switch that cannot be turned on."""


class RequestModel(BaseModel):
    """An object a client sends.

    JSON types are taken literally (`"1"` is no number, `true` no integer, NaN no float), `null` counts as absent for
    every field that has a default. Names that are not declared are errors or, where the validation's context has a list
    `ignored`, left out and noted there, each with the object it stood in (`server/api/ignored.py`).
    """

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, Mapping):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        unknown = [name for name in data if name not in known]
        ignored: list[tuple[Mapping[str, Any], str]] | None = (info.context or {}).get("ignored")
        if ignored is None:
            if len(data) > len(known):  # pydantic would list all that are unknown
                raise PydanticCustomError("extra_forbidden", "is not known", {"param": unknown[0]})
        else:
            ignored += [(data, name) for name in unknown]
            data = {name: value for name, value in data.items() if name in known}
        return {name: value for name, value in data.items() if value is not None or name not in cls.model_fields}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The JSON schema, saying that optional fields may be null."""
        schema = handler(core_schema)
        resolved = handler.resolve_ref_schema(schema)
        required = resolved.get("required", [])
        properties = resolved.get("properties", {})
        for name, declared in properties.items():
            if name not in required:
                properties[name] = _nullable(declared)
        return schema


class ModelRequest(RequestModel):
    """A request to a model."""

    model: Annotated[str, Field(min_length=1)]
    """Name of the served model."""


class ResponseModel(BaseModel):
    """An object the server sends."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    def encode(self) -> bytes:
        """The object as JSON, without the fields that were not set."""
        return self.model_dump_json(exclude_unset=True).encode()


def _nullable(declared: JsonSchemaValue) -> JsonSchemaValue:
    alternatives = declared.get("anyOf", [])
    if declared.get("type") == "null" or {"type": "null"} in alternatives:
        return declared
    outer = {key: value for key, value in declared.items() if key in ("title", "description", "default")}
    inner = {key: value for key, value in declared.items() if key not in outer}
    return {"anyOf": [inner, {"type": "null"}], **outer}
