"""Functions a model may call, as the Responses API has them: flat where chat nests them."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from server.api.base_models import RequestModel
from server.prompt.messages import TEXT_OR_PARTS, told_by
from server.tools.protocol import FunctionName


class InputText(RequestModel):
    """A piece of text."""

    type: Literal["input_text"]
    text: str


TextInput = Annotated[Annotated[InputText, Tag("<input_text>")], told_by("type", "input_text")]


class FunctionTool(RequestModel):
    """A function and how to call it."""

    type: Literal["function"]
    name: FunctionName
    """Letters, digits, underscores and dashes."""
    description: str | None = None
    """What it does; the model reads it."""
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments, which are an object. Unset: there are none."""
    strict: bool = False
    """Refuse parameters that cannot be enforced to the letter, instead of enforcing a JSON object."""


class ChosenFunction(RequestModel):
    """One of the functions, by its name."""

    type: Literal["function"]
    name: FunctionName


class AllowedFunctions(RequestModel):
    """Call only some of the functions; the model is told of all."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    """As `tool_choice`, of these functions."""
    tools: Annotated[list[ChosenFunction], Field(min_length=1)]


def _choice_form(value: Any) -> str:
    if not isinstance(value, dict | RequestModel):
        return "<mode>"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "<allowed_tools>" if kind == "allowed_tools" else "<function>"


AnyTool = Annotated[Annotated[FunctionTool, Tag("<function>")], told_by("type", "function")]
FunctionChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[ChosenFunction, Tag("<function>")]
    | Annotated[AllowedFunctions, Tag("<allowed_tools>")],
    Discriminator(_choice_form),
]


class FunctionCall(RequestModel):
    """A call in an earlier answer; its result follows."""

    type: Literal["function_call"]
    call_id: Annotated[str, Field(min_length=1)]
    """What the result refers to."""
    name: FunctionName
    arguments: str
    """As the model wrote them; JSON, if all went well."""
    id: str | None = None
    """Accepted; nothing is stored under it."""
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    """Accepted, since answers have it."""


class FunctionCallOutput(RequestModel):
    """What a function returned."""

    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(min_length=1)]
    """Of the call."""
    output: Annotated[
        Annotated[str, Tag("<string>")] | Annotated[list[TextInput], Field(min_length=1), Tag("<parts>")], TEXT_OR_PARTS
    ]
    """Text; pictures and clips are not taken here."""
    id: str | None = None
    """Accepted; nothing is stored under it."""
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    """Accepted, since answers have it."""
