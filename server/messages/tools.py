"""Functions a model may call, as the Messages API has them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from server.api.base_models import RequestModel
from server.prompt.messages import tagged_by
from server.tools.protocol import FunctionName, ProvidedTool, type_of
from server.tools.toolset import ToolFunction, Toolset


class CustomTool(RequestModel):
    """A function and how to call it."""

    type: Literal["custom"] | None = None
    name: FunctionName
    """Letters, digits, underscores and dashes."""
    description: str | None = None
    """What it does; the model reads it."""
    input_schema: dict[str, Any]
    """JSON Schema of the arguments, which are an object."""
    strict: bool = False
    """Refuse a schema that cannot be enforced to the letter, instead of enforcing a JSON object."""
    cache_control: dict[str, Any] | None = None
    """Accepted; the prefix cache works by itself."""
    eager_input_streaming: bool | None = None
    """Accepted; arguments are always streamed as they are written."""
    defer_loading: bool | None = None
    """Accepted; the model sees all functions at once."""
    allowed_callers: list[str] | None = None
    """Accepted; the model is the only caller."""
    input_examples: list[dict[str, Any]] | None = None
    """Accepted; the model does not see them."""


def _tool_form(value: Any) -> str:
    return "<custom>" if type_of(value) in (None, "custom") else "<provided>"


AnyTool = Annotated[
    Annotated[CustomTool, Tag("<custom>")] | Annotated[ProvidedTool, Tag("<provided>")], Discriminator(_tool_form)
]


class AutoChoice(RequestModel):
    """Call functions or answer; `any`: call one or more."""

    type: Literal["auto", "any"]
    disable_parallel_tool_use: bool = False
    """At most one call."""


class NamedChoice(RequestModel):
    """Call this function."""

    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool = False
    """At most one call."""


class NoChoice(RequestModel):
    """Answer, and show the model no functions."""

    type: Literal["none"]


ToolChoice = Annotated[
    Annotated[AutoChoice, Tag("<auto>")]
    | Annotated[AutoChoice, Tag("<any>")]
    | Annotated[NamedChoice, Tag("<tool>")]
    | Annotated[NoChoice, Tag("<none>")],
    tagged_by("type", "auto, any, tool, none"),
]


def read_toolset(tools: Sequence[CustomTool | ProvidedTool], choice: ToolChoice | None) -> Toolset | None:
    """The functions, and how they may be called; None where they may not.

    Args:
        tools: the request's; those that are not the client's own are left out.
        choice: its `tool_choice`.
    """
    functions = tuple(
        ToolFunction(tool.name, tool.description, tool.input_schema, tool.strict, f"tools[{index}].input_schema")
        for index, tool in enumerate(tools)
        if isinstance(tool, CustomTool)
    )
    if not functions or isinstance(choice, NoChoice):
        return None
    return Toolset(
        functions=functions,
        must_call=isinstance(choice, NamedChoice) or (choice is not None and choice.type == "any"),
        calls_once=choice is not None and choice.disable_parallel_tool_use,
        allowed=frozenset((choice.name,)) if isinstance(choice, NamedChoice) else None,
    )


def left_out(tools: Sequence[CustomTool | ProvidedTool]) -> list[str]:
    """The request fields of tools that the model does not see."""
    return [f"tools[{index}]" for index, tool in enumerate(tools) if isinstance(tool, ProvidedTool)]
