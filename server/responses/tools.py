"""Functions a model may call, as the Responses API has them: flat where chat nests them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from server.api.base_models import RequestModel
from server.prompt.messages import tagged_by
from server.tools.protocol import FunctionName
from server.tools.toolset import ToolFunction, Toolset


class InputText(RequestModel):
    """A piece of text."""

    type: Literal["input_text"]
    text: str


TextInput = Annotated[Annotated[InputText, Tag("<input_text>")], tagged_by("type", "input_text")]


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
    """Call only some of the functions; the model sees all."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    """As `tool_choice`, of these functions."""
    tools: Annotated[list[ChosenFunction], Field(min_length=1)]


def _choice_form(value: Any) -> str:
    if not isinstance(value, dict | RequestModel):
        return "<mode>"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "<allowed_tools>" if kind == "allowed_tools" else "<function>"


AnyTool = Annotated[Annotated[FunctionTool, Tag("<function>")], tagged_by("type", "function")]
FunctionChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[ChosenFunction, Tag("<function>")]
    | Annotated[AllowedFunctions, Tag("<allowed_tools>")],
    Discriminator(_choice_form),
]


def chosen_names(choice: FunctionChoice | None) -> list[tuple[str, str]]:
    """The names in `tool_choice`, each with its field."""
    match choice:
        case ChosenFunction(name=name):
            return [("tool_choice.name", name)]
        case AllowedFunctions(tools=tools):
            return [(f"tool_choice.tools[{index}].name", tool.name) for index, tool in enumerate(tools)]
        case _:
            return []


def read_toolset(tools: Sequence[FunctionTool], choice: FunctionChoice | None, *, parallel: bool) -> Toolset | None:
    """The functions, and how they may be called; None where they may not.

    Args:
        tools: the request's.
        choice: its `tool_choice`.
        parallel: its `parallel_tool_calls`.
    """
    if not tools or choice == "none":
        return None
    return Toolset(
        functions=tuple(
            ToolFunction(tool.name, tool.description, tool.parameters, tool.strict, f"tools[{index}].parameters")
            for index, tool in enumerate(tools)
        ),
        must_call=choice == "required"
        or isinstance(choice, ChosenFunction)
        or (isinstance(choice, AllowedFunctions) and choice.mode == "required"),
        calls_once=not parallel or isinstance(choice, ChosenFunction),
        allowed=frozenset(name for _, name in chosen_names(choice)) or None,
    )


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
