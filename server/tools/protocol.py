"""Functions a model may call, which of them it must, and the calls of earlier turns."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from server.api.base_models import RequestModel, bounded, conflict

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
    """Call only some of the tools; the model is told of all."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _choice_form(value: Any) -> str:
    if not isinstance(value, dict | RequestModel):
        return "<mode>"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "<allowed_tools>" if kind == "allowed_tools" else "<function>"


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[NamedTool, Tag("<function>")]
    | Annotated[AllowedToolsChoice, Tag("<allowed_tools>")],
    Discriminator(_choice_form),
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


class ToolUse(RequestModel):
    """The fields of a request that lets the model call functions."""

    tools: Annotated[list[Tool], bounded(MAX_TOOLS, least=1)] | None = None
    """Functions the model may call."""
    tool_choice: ToolChoice | None = None
    """Only with `tools`. auto, the default: call functions or answer. none: answer, and tell the model of no tools.
    required: call one or more. A named function: call it once."""
    parallel_tool_calls: bool = True
    """Only with `tools`. false: at most one call."""

    @property
    def may_call(self) -> bool:
        """Whether calls are possible."""
        return self.tools is not None and self.tool_choice != "none"

    @property
    def must_call(self) -> bool:
        """Whether the answer is calls and nothing else."""
        choice = self.tool_choice
        if isinstance(choice, AllowedToolsChoice):
            return choice.allowed_tools.mode == "required"
        return choice == "required" or isinstance(choice, NamedTool)

    @property
    def calls_once(self) -> bool:
        """Whether one call is the most."""
        return not self.parallel_tool_calls or isinstance(self.tool_choice, NamedTool)

    @property
    def shown_functions(self) -> list[Function]:
        """What the model is told of."""
        return [tool.function for tool in self.tools or []] if self.may_call else []

    @property
    def callable_functions(self) -> list[tuple[str, Function]]:
        """What may be called, each with the field it stands in, such as `tools[0].function`."""
        match self.tool_choice:
            case NamedTool(function=only):
                names = [only.name]
            case AllowedToolsChoice(allowed_tools=allowed):
                names = [tool.function.name for tool in allowed.tools]
            case _:
                names = [function.name for function in self.shown_functions]
        numbered = enumerate(self.shown_functions)
        return [(f"tools[{index}].function", function) for index, function in numbered if function.name in names]

    @model_validator(mode="after")
    def _agree_on_tools(self) -> "ToolUse":
        if self.tools is None:
            for name in ("tool_choice", "parallel_tool_calls"):
                if name in self.model_fields_set:
                    raise conflict(name, "is only allowed with 'tools'")
            return self
        names: set[str] = set()
        for index, tool in enumerate(self.tools):
            if tool.function.name in names:
                raise conflict(f"tools[{index}].function.name", "is the name of an earlier tool")
            names.add(tool.function.name)
        for param, name in self._chosen():
            if name not in names:
                raise conflict(param, "names none of the tools")
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
