"""Request fields for the output's format: OpenAI's `response_format` and vLLM's `structured_outputs`."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from server.api.base_models import RequestModel, bounded, conflict

JsonSchema = dict[str, Any]
SchemaName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
"""Letters, digits, underscores and dashes."""


MAX_CHOICES = 100_000
"""Texts of a `choice`."""


class NamedSchema(RequestModel):
    """A JSON Schema with the name the client calls it by."""

    name: SchemaName
    schema_: Annotated[JsonSchema, Field(alias="schema")]
    """The JSON Schema every answer satisfies."""
    description: str | None = None
    """Accepted; the model does not see it."""
    strict: bool = False
    """Accepted; the schema is enforced either way."""


class ResponseFormat(RequestModel):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    """text: any. json_object: a JSON object. json_schema: JSON that satisfies the schema."""
    json_schema: NamedSchema | None = None
    """Goes with the type `json_schema`."""

    @model_validator(mode="after")
    def _agree(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise conflict("json_schema", "is missing")
        if self.type != "json_schema" and self.json_schema is not None:
            raise conflict("json_schema", f"cannot be combined with the type '{self.type}'")
        return self


class StructuredOutputs(RequestModel):
    """A constraint under vLLM's names; exactly one of them."""

    json_: (
        Annotated[
            Annotated[str, Tag("<string>")] | Annotated[JsonSchema, Tag("<object>")],
            Discriminator(lambda value: "<string>" if isinstance(value, str) else "<object>"),
        ]
        | None
    ) = Field(default=None, alias="json")
    """A JSON Schema, as an object or as text."""
    json_object: bool | None = None
    """true: a JSON object."""
    regex: str | None = None
    """A regular expression the whole answer matches."""
    choice: Annotated[list[Annotated[str, Field(min_length=1)]], bounded(MAX_CHOICES, least=1)] | None = None
    """Texts, one of which is the answer."""
    grammar: Annotated[str, Field(min_length=1)] | None = None
    """A grammar in the GBNF notation; its first symbol is `root`."""

    @property
    def names(self) -> list[str]:
        """Names of the constraints that are there."""
        values = {"json": self.json_, "json_object": self.json_object, "regex": self.regex, "choice": self.choice}
        return [name for name, value in {**values, "grammar": self.grammar}.items() if value is not None]

    @model_validator(mode="after")
    def _one(self) -> "StructuredOutputs":
        if self.json_object is False:
            raise conflict("json_object", "must be true where it is set")
        if len(self.names) != 1:
            names = ", ".join(self.names) or "none"
            raise PydanticCustomError(
                "invalid_value",
                "must hold exactly one of json, json_object, regex, choice, grammar, not {names}",
                {"names": names},
            )
        return self
