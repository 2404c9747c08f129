"""The bodies of `POST /v1/messages` and `POST /v1/messages/count_tokens`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from server.api.base_models import MAX_MESSAGES, ModelRequest, RequestModel, Unsupported, bounded, conflict
from server.messages.content import AnyTurn, TextBlocks, require_answered_calls
from server.messages.tools import AnyTool, CustomTool, NamedChoice, NoChoice, ToolChoice
from server.structured_output.protocol import JsonSchema
from server.tools.protocol import MAX_TOOLS
from server.tools.toolset import check_names

MAX_STOP_SEQUENCES = 64


class OutputFormat(RequestModel):
    """The form of the answer."""

    type: Literal["json_schema"]
    schema_: Annotated[JsonSchema, Field(alias="schema")]
    """The JSON Schema every answer satisfies."""


class OutputConfig(RequestModel):
    """How to answer."""

    format: OutputFormat | None = None
    """JSON that satisfies a schema."""
    effort: str | None = None
    """Accepted; the model has no such setting."""
    task_budget: dict[str, Any] | None = None
    """Accepted; the model knows of no budget."""


class CountTokensRequest(ModelRequest):
    """A conversation whose tokens to count."""

    messages: Annotated[list[AnyTurn], bounded(MAX_MESSAGES, least=1)]
    """The conversation so far; an assistant's turn at its end is continued."""
    system: TextBlocks | None = None
    """Instructions for the assistant, before the messages."""
    tools: Annotated[list[AnyTool], bounded(MAX_TOOLS)] = []
    """Functions the model may call. Tools that Anthropic defines or runs are left out and reported."""
    tool_choice: ToolChoice | None = None
    """auto, the default: call functions or answer. none: answer, and show the model no functions. any: call one or
    more. tool: call that one."""

    # Cannot apply to a model on one's own machine; accepted so that clients which always send them work.
    thinking: dict[str, Any] | None = None
    cache_control: dict[str, Any] | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    """Older place of `output_config.format`."""
    context_management: dict[str, Any] | None = None
    speed: str | None = None
    user_profile_id: str | None = None
    workspace_id: str | None = None

    mcp_servers: Annotated[list[Any], Field(max_length=0)] = []
    """Must be empty: the server connects to none."""

    @property
    def form(self) -> tuple[OutputFormat, str] | None:
        """The form of the answer and the request field it stands in, or None for text."""
        if self.output_config is not None and self.output_config.format is not None:
            return self.output_config.format, "output_config.format"
        return None if self.output_format is None else (self.output_format, "output_format")

    @model_validator(mode="after")
    def _agree(self) -> "CountTokensRequest":
        if self.output_format is not None and self.output_config is not None and self.output_config.format is not None:
            raise conflict("output_format", "cannot be combined with 'output_config.format'")
        functions = [(index, tool) for index, tool in enumerate(self.tools) if isinstance(tool, CustomTool)]
        chosen = [("tool_choice.name", self.tool_choice.name)] if isinstance(self.tool_choice, NamedChoice) else []
        check_names([(f"tools[{index}].name", tool.name) for index, tool in functions], chosen)
        if not functions and not (isinstance(self.tool_choice, NoChoice | None) or self.tool_choice.type == "auto"):
            raise conflict("tool_choice", "is only allowed with functions in 'tools'")
        require_answered_calls(self.messages)
        return self


class MessagesRequest(CountTokensRequest):
    """A conversation to answer, and how."""

    max_tokens: Annotated[int, Field(ge=1)]
    """Longest answer, in tokens; lowered to what the context leaves."""
    stream: bool = False
    """Send the answer as server-sent events while it is generated."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0: always the most likely token. Unset: the model's own, or 1."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Sample from the most likely tokens with this share of the probability."""
    top_k: Annotated[int, Field(ge=-1, lt=1 << 31)] | None = None
    """Sample from this many of the most likely tokens; 0 or -1: from all."""
    stop_sequences: Annotated[list[Annotated[str, Field(min_length=1)]], bounded(MAX_STOP_SEQUENCES)] = []
    """Where to stop; the answer ends before it, and says which it was."""

    metadata: dict[str, Any] | None = None
    """Accepted; nothing is kept."""
    service_tier: str | None = None
    inference_geo: str | None = None
    diagnostics: dict[str, Any] | None = None
    container: Unsupported = None
    thread: Unsupported = None
    """No conversation is kept; the official client then sends it whole."""
