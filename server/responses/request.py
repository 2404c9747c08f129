"""The body of `POST /v1/responses`."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from server.api.base_models import (
    MAX_MESSAGES,
    MAX_METADATA,
    ModelRequest,
    RequestModel,
    Unsupported,
    at_most,
    bounded,
    conflict,
)
from server.generation.sampling_fields import SamplingFields
from server.prompt.media_fields import MediaFields
from server.prompt.render_fields import TemplateOptions
from server.responses.input import AnyInput, Reasoning
from server.responses.tools import AnyTool, FunctionChoice, chosen_names, functions
from server.structured_output.protocol import JsonSchema, SchemaName
from server.tools.protocol import MAX_TOOLS
from server.tools.toolset import check_names

_LOGPROBS = "message.output_text.logprobs"


class TextFormat(RequestModel):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    """text: any. json_object: a JSON object. json_schema: JSON that satisfies `schema`."""
    name: SchemaName | None = None
    """What the client calls the schema."""
    schema_: Annotated[JsonSchema | None, Field(alias="schema")] = None
    """The JSON Schema every answer satisfies."""
    description: str | None = None
    """Accepted; the model does not see it."""
    strict: bool = False
    """Accepted; the schema is enforced either way."""

    @model_validator(mode="after")
    def _agree(self) -> "TextFormat":
        for name, value in (("name", self.name), ("schema", self.schema_)):
            if self.type == "json_schema" and value is None:
                raise PydanticCustomError("missing", "is missing", {"param": name})
            if self.type != "json_schema" and value is not None:
                raise conflict(name, f"cannot be combined with the type '{self.type}'")
        return self


class TextOptions(RequestModel):
    """How to write."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    """Accepted; the model has no such setting."""


class ConversationReference(RequestModel):
    """A conversation, by its id."""

    id: Annotated[str, Field(min_length=1)]


class ResponseStreamOptions(RequestModel):
    """How to stream."""

    include_obfuscation: bool = False
    """Accepted; this server pads no events."""


class ResponseRequest(SamplingFields, MediaFields, ModelRequest):
    """Something to answer, and how; it may build on what is remembered of earlier requests."""

    input: Annotated[
        Annotated[str, Tag("<string>")] | Annotated[list[AnyInput], bounded(MAX_MESSAGES, least=1), Tag("<items>")],
        Discriminator(lambda value: "<items>" if isinstance(value, list) else "<string>"),
    ]
    """A text, or the conversation so far, or what follows the one that is remembered."""
    instructions: str | None = None
    """Instructions for the assistant, before everything in `input`."""
    chat_template_kwargs: TemplateOptions = {}
    """Variables of the model's chat template; those it does not read are left out and reported."""
    text: TextOptions | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest answer, in tokens. Unset: what the context leaves."""
    include: Annotated[
        list[
            Literal[
                "message.output_text.logprobs",
                "message.input_image.image_url",
                "reasoning.encrypted_content",
                "file_search_call.results",
                "web_search_call.results",
                "web_search_call.action.sources",
                "computer_call_output.output.image_url",
                "code_interpreter_call.outputs",
            ]
        ],
        bounded(64),
    ] = []
    """message.output_text.logprobs: report the log-probability of each token. The others never occur."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Also report this many of the most likely tokens; only with `message.output_text.logprobs`."""
    stream: bool = False
    """Send the answer as server-sent events while it is generated."""
    stream_options: ResponseStreamOptions | None = None
    """Only with `stream`."""
    store: bool | None = None
    """Remember the response for later requests; on unless false."""
    truncation: Literal["disabled", "auto"] | None = None
    """What does not fit is refused either way; the response says `disabled`."""

    tools: Annotated[list[AnyTool], bounded(MAX_TOOLS)] = []
    """Functions the model may call."""
    tool_choice: FunctionChoice | None = None
    """auto, the default: call functions or answer. none: answer, and show the model no tools. required: call one or
    more. A named function: call it once."""
    parallel_tool_calls: bool = True
    """false: at most one call."""
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    """Accepted; it limits tools that the server would run, and there are none."""

    # Cannot apply to a model on one's own machine; accepted so that clients which always send them work.
    metadata: Annotated[dict[str, str], Field(max_length=MAX_METADATA), at_most(MAX_METADATA)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None

    previous_response_id: Annotated[str, Field(min_length=1)] | None = None
    """The response whose conversation goes on; its instructions do not."""
    conversation: (
        Annotated[
            Annotated[str, Field(min_length=1), Tag("<id>")] | Annotated[ConversationReference, Tag("<object>")],
            Discriminator(lambda value: "<id>" if isinstance(value, str) else "<object>"),
        ]
        | None
    ) = None
    """The conversation that goes on, and to which `input` and the answer are added."""
    background: Literal[False] | None = None
    """Answers are made while the client waits."""
    prompt: Unsupported = None
    context_management: Unsupported = None
    moderation: Unsupported = None
    response_format: Unsupported = None
    structured_outputs: Unsupported = None
    n: Annotated[int, Field(ge=1, le=1)] = 1
    """There is one answer."""

    @property
    def conversation_id(self) -> str | None:
        """Of the conversation that goes on."""
        return self.conversation.id if isinstance(self.conversation, ConversationReference) else self.conversation

    @property
    def reports_logprobs(self) -> bool:
        """Whether log-probabilities are requested."""
        return _LOGPROBS in self.include

    @model_validator(mode="after")
    def _agree(self) -> "ResponseRequest":
        if self.stream_options is not None and not self.stream:
            raise conflict("stream_options", "is only allowed with 'stream'")
        if self.top_logprobs is not None and not self.reports_logprobs:
            raise conflict("top_logprobs", f"is only allowed with '{_LOGPROBS}' in 'include'")
        has_form = self.text is not None and self.text.format is not None and self.text.format.type != "text"
        if has_form or (self.tools and self.tool_choice != "none"):
            self._require_free_end()
        self._require_min_tokens_within(self.max_output_tokens)
        if self.conversation is not None and self.previous_response_id is not None:
            raise conflict("conversation", "cannot be combined with 'previous_response_id'")
        named = [(f"{function.param}.name", function.full_name) for function in functions(self.tools)]
        if self.tool_choice not in (None, "none", "auto") and not named:
            raise conflict("tool_choice", "is only allowed with functions in 'tools'")
        if named:
            check_names(named, chosen_names(self.tool_choice))
        if not isinstance(self.input, str) and all(isinstance(item, Reasoning) for item in self.input):
            raise conflict("input", "holds reasoning only, and nothing to answer")
        return self
