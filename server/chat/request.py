"""The body of `POST /v1/chat/completions`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from server.api.base_models import (
    MAX_MESSAGES,
    MAX_METADATA,
    AlwaysFalse,
    ModelRequest,
    Unsupported,
    at_most,
    bounded,
    conflict,
)
from server.generation.sampling_fields import SamplingFields, StreamFields
from server.prompt.media_fields import MediaFields
from server.prompt.messages import AnyMessage
from server.prompt.render_fields import Rendering
from server.prompt.tool_messages import require_answered_calls
from server.structured_output.protocol import ResponseFormat, StructuredOutputs
from server.tools.protocol import ToolUse


class ChatCompletionRequest(SamplingFields, StreamFields, Rendering, MediaFields, ToolUse, ModelRequest):
    """A conversation to answer, and how."""

    messages: Annotated[list[AnyMessage], bounded(MAX_MESSAGES, least=1)]
    """The conversation so far."""

    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest answer, in tokens. Unset: what the context leaves."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Older name of `max_completion_tokens`, which wins."""
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """Transformers' name of the same; the others win."""
    logprobs: bool = False
    """Report the log-probability of each token of the answer."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Also report this many of the most likely tokens; only with `logprobs`."""

    add_vision_id: bool = False
    """Number the media in the prompt: `Picture 1: `, `Video 1: `."""
    include: Annotated[list[Literal["media"]], bounded(8)] = []
    """media: report in a `tessera` object what was done to each image and video."""

    response_format: ResponseFormat | None = None
    """The form of the answer: text, a JSON object, or JSON that satisfies a schema."""
    structured_outputs: StructuredOutputs | None = None
    """The form of the answer under vLLM's names."""
    modalities: Annotated[list[Literal["text"]], bounded(8, least=1)] | None = None
    # Cannot apply to a model on one's own machine; accepted so that clients which always send them work.
    user: str | None = None
    metadata: Annotated[dict[str, str], Field(max_length=MAX_METADATA), at_most(MAX_METADATA)] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    reasoning_effort: str | None = None

    functions: Unsupported = None
    function_call: Unsupported = None
    audio: Unsupported = None
    web_search_options: Unsupported = None
    moderation: Unsupported = None
    chat_template: Unsupported = None
    documents: Unsupported = None
    echo: AlwaysFalse = False

    @property
    def max_answer_tokens(self) -> int | None:
        """The longest answer the client requests, or None."""
        named = (self.max_completion_tokens, self.max_tokens, self.max_new_tokens)
        return next((value for value in named if value is not None), None)

    @property
    def has_form(self) -> bool:
        """Whether the answer is to have a form that is enforced."""
        formatted = self.response_format is not None and self.response_format.type != "text"
        return formatted or self.structured_outputs is not None

    @model_validator(mode="after")
    def _agree(self) -> "ChatCompletionRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise conflict("top_logprobs", "is only allowed with 'logprobs'")
        if self.structured_outputs is not None and self.response_format is not None:
            raise conflict("structured_outputs", "cannot be combined with 'response_format'")
        if self.structured_outputs is not None and self.may_call:
            raise conflict("structured_outputs", "cannot be combined with tools the model may call")
        if self.has_form or self.may_call:
            self._require_free_end()
        self._require_min_tokens_within(self.max_answer_tokens)
        self._require_one_end(self.messages)
        require_answered_calls(self.messages)
        return self
