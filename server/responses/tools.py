"""Functions a model may call, as the Responses API has them: flat where chat nests them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from server.api.base_models import RequestModel, bounded
from server.prompt.messages import tagged_by
from server.tools.protocol import MAX_TOOLS, FunctionName, ProvidedTool, choice_form, type_of
from server.tools.toolset import ToolFunction, Toolset


def full_name(name: str, namespace: str | None) -> str:
    """What the model calls a function, which may be in a namespace."""
    return name if namespace is None else f"{namespace}__{name}"


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


def _tool_form(value: Any) -> str:
    kind = type_of(value)
    return f"<{kind}>" if kind in (None, "function", "namespace") else "<provided>"


class NamespaceTool(RequestModel):
    """Functions under a common name; the model sees each as `NAMESPACE__NAME`."""

    type: Literal["namespace"]
    name: FunctionName
    description: str | None = None
    """Accepted; the functions have their own."""
    tools: Annotated[
        list[
            Annotated[
                Annotated[FunctionTool, Tag("<function>")] | Annotated[ProvidedTool, Tag("<provided>")],
                Discriminator(lambda value: form if (form := _tool_form(value)) == "<function>" else "<provided>"),
            ]
        ],
        bounded(MAX_TOOLS),
    ]


class ChosenFunction(RequestModel):
    """One of the functions, by its name."""

    type: Literal["function"]
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,130}$")]
    """With its namespace, if it has one: `NAMESPACE__NAME`, or next to it."""
    namespace: FunctionName | None = None

    @property
    def full_name(self) -> str:
        """What the model calls it."""
        return full_name(self.name, self.namespace)


class AllowedFunctions(RequestModel):
    """Call only some of the functions; the model sees all."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    """As `tool_choice`, of these functions."""
    tools: Annotated[list[ChosenFunction], Field(min_length=1)]


AnyTool = Annotated[
    Annotated[FunctionTool, Tag("<function>")]
    | Annotated[NamespaceTool, Tag("<namespace>")]
    | Annotated[ProvidedTool, Tag("<provided>")],
    Discriminator(
        _tool_form, custom_error_type="unknown_type", custom_error_message="takes function, namespace and others"
    ),
]
Tool = FunctionTool | NamespaceTool | ProvidedTool


@dataclass(frozen=True, slots=True)
class PlacedFunction:
    """A function of the request, and where it stands."""

    tool: FunctionTool
    namespace: str | None
    param: str

    @property
    def full_name(self) -> str:
        """What the model calls it."""
        return full_name(self.tool.name, self.namespace)


def functions(tools: Sequence[Tool]) -> Iterator[PlacedFunction]:
    """The functions of a request, those of namespaces included."""
    for index, tool in enumerate(tools):
        place = f"tools[{index}]"
        if isinstance(tool, FunctionTool):
            yield PlacedFunction(tool, None, place)
        elif isinstance(tool, NamespaceTool):
            for number, inner in enumerate(tool.tools):
                if isinstance(inner, FunctionTool):
                    yield PlacedFunction(inner, tool.name, f"{place}.tools[{number}]")


def left_out(tools: Sequence[Tool]) -> list[str]:
    """The request fields of tools that the model does not see."""
    places: list[str] = []
    for index, tool in enumerate(tools):
        inner = [(f"tools[{index}]", tool)]
        if isinstance(tool, NamespaceTool):
            inner = [(f"tools[{index}].tools[{number}]", one) for number, one in enumerate(tool.tools)]
        places += [place for place, one in inner if isinstance(one, ProvidedTool)]
    return places


FunctionChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[ChosenFunction, Tag("<function>")]
    | Annotated[AllowedFunctions, Tag("<allowed_tools>")],
    Discriminator(choice_form),
]


def chosen_names(choice: FunctionChoice | None) -> list[tuple[str, str]]:
    """The names in `tool_choice`, each with its field."""
    match choice:
        case ChosenFunction():
            return [("tool_choice.name", choice.full_name)]
        case AllowedFunctions(tools=tools):
            return [(f"tool_choice.tools[{index}].name", tool.full_name) for index, tool in enumerate(tools)]
        case _:
            return []


def read_toolset(tools: Sequence[Tool], choice: FunctionChoice | None, *, parallel: bool) -> Toolset | None:
    """The functions, and how they may be called; None where they may not.

    Args:
        tools: the request's.
        choice: its `tool_choice`.
        parallel: its `parallel_tool_calls`.
    """
    described = tuple(
        ToolFunction(
            name=function.full_name,
            description=function.tool.description,
            parameters=function.tool.parameters,
            strict=function.tool.strict,
            param=f"{function.param}.parameters",
        )
        for function in functions(tools)
    )
    if not described or choice == "none":
        return None
    return Toolset(
        functions=described,
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
    namespace: FunctionName | None = None
    """Of the function, if it has one."""
    arguments: str
    """As the model wrote them; JSON, if all went well."""
    id: str | None = None
    """Of the item."""
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    """Accepted, since answers have it."""

    @property
    def full_name(self) -> str:
        """What the model calls the function."""
        return full_name(self.name, self.namespace)
