"""Functions a model may call, which of them it must, and the calls of earlier turns."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from server.api.base_models import RequestModel, bounded, conflict
from server.tools.toolset import ToolFunction, Toolset, check_names

MAX_TOOLS = 128
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class Function(RequestModel):
    """A function and how to call it."""

    name: FunctionName
    """Letters, digits, underscores and dashes."""
    description: str | None = None
    """What it does; the model reads it."""
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments, which are an object. Unset: there are none."""
    strict: bool = False
    """Refuse parameters that cannot be enforced to the letter, instead of only enforcing some JSON object; where a
    function must be called, that is so without it."""


class Tool(RequestModel):
    """Something the model may use."""

    type: Literal["function"]
    function: Function


class ProvidedTool(RequestModel):
    """A tool that is no function of the client's but the service's own, such as `web_search`; left out and reported."""

    type: Annotated[str, Field(min_length=1)]
    name: str | None = None


class FunctionReference(RequestModel):
    """One of the functions, by its name."""

    name: FunctionName


class NamedTool(RequestModel):
    """One of the tools, by its name."""

    type: Literal["function"]
    function: FunctionReference


class AllowedTools(RequestModel):
    """Some of the tools."""

    mode: Literal["auto", "required"]
    """As `tool_choice`, of these tools."""
    tools: Annotated[list[NamedTool], bounded(MAX_TOOLS, least=1)]


class AllowedToolsChoice(RequestModel):
    """Call only some of the tools; the model sees all."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def type_of(value: Any) -> Any:
    """The `type` of a JSON object, or of a model made of one; None where it has none."""
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)


def choice_form(value: Any) -> str:
    """Which form of `tool_choice` this is: a word, some of the tools, or one of them."""
    if not isinstance(value, dict | RequestModel):
        return "<mode>"
    return "<allowed_tools>" if type_of(value) == "allowed_tools" else "<function>"


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[NamedTool, Tag("<function>")]
    | Annotated[AllowedToolsChoice, Tag("<allowed_tools>")],
    Discriminator(choice_form),
]


class CalledFunction(RequestModel):
    """What an earlier answer called."""

    name: FunctionName
    arguments: str
    """As the model wrote them; JSON, if all went well."""
    parsed_arguments: Any = None
    """Accepted; the official client sends them along with what it parsed."""


class ToolCall(RequestModel):
    """A call in an earlier answer."""

    id: Annotated[str, Field(min_length=1)]
    """What the message with the result refers to."""
    type: Literal["function"]
    function: CalledFunction
    index: int | None = None
    """Accepted; the official client sends it along with what it streamed."""


class ToolUse(RequestModel):
    """The fields of a request that lets the model call functions."""

    tools: Annotated[list[Tool], bounded(MAX_TOOLS, least=1)] | None = None
    """Functions the model may call."""
    tool_choice: ToolChoice | None = None
    """Only with `tools`. auto, the default: call functions or answer. none: answer, and show the model no tools.
    required: call one or more. A named function: call it once."""
    parallel_tool_calls: bool = True
    """Only with `tools`. false: at most one call."""

    @property
    def may_call(self) -> bool:
        """Whether calls are possible."""
        return self.tools is not None and self.tool_choice != "none"

    @property
    def toolset(self) -> Toolset | None:
        """The functions, and how they may be called; None where they may not."""
        if self.tools is None or self.tool_choice == "none":
            return None
        choice = self.tool_choice
        mode = choice.allowed_tools.mode if isinstance(choice, AllowedToolsChoice) else choice
        return Toolset(
            functions=tuple(
                ToolFunction(
                    name=tool.function.name,
                    description=tool.function.description,
                    parameters=tool.function.parameters,
                    strict=tool.function.strict,
                    param=f"tools[{index}].function.parameters",
                )
                for index, tool in enumerate(self.tools)
            ),
            must_call=mode == "required" or isinstance(choice, NamedTool),
            calls_once=not self.parallel_tool_calls or isinstance(choice, NamedTool),
            allowed=frozenset(name for _, name in self._chosen()) or None,
        )

    @model_validator(mode="after")
    def _agree_on_tools(self) -> "ToolUse":
        if self.tools is None:
            for name in ("tool_choice", "parallel_tool_calls"):
                if name in self.model_fields_set:
                    raise conflict(name, "is only allowed with 'tools'")
            return self
        named = [(f"tools[{index}].function.name", tool.function.name) for index, tool in enumerate(self.tools)]
        check_names(named, self._chosen())
        return self

    def _chosen(self) -> list[tuple[str, str]]:
        """Names in `tool_choice`, each with its field."""
        match self.tool_choice:
            case NamedTool(function=only):
                return [("tool_choice.function.name", only.name)]
            case AllowedToolsChoice(allowed_tools=allowed):
                place = "tool_choice.allowed_tools.tools"
                return [(f"{place}[{i}].function.name", tool.function.name) for i, tool in enumerate(allowed.tools)]
            case _:
                return []
