"""The body of `POST /v1/chat/completions`."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from server.protocol.content import AnyMessage
from server.protocol.wire import Unsupported, WireModel, conflict

_INT64 = 1 << 63
_Penalty = Annotated[float, Field(ge=-2, le=2)]
_StopString = Annotated[str, Field(min_length=1)]


def _token_id_keys(bias: dict[str, float]) -> dict[str, float]:
    for key in bias:
        if not re.fullmatch(r"0|[1-9][0-9]{0,8}", key):
            raise PydanticCustomError("invalid_value", 'must have token ids as keys, such as "1234"')
    return bias


class StreamOptions(WireModel):
    """What a stream holds besides the deltas."""

    include_usage: bool = False
    """Send one last chunk with the token counts."""
    include_obfuscation: bool = False
    """Accepted; this server pads no events."""


class ResponseFormat(WireModel):
    """The form of the answer; free text is the only one there is."""

    type: str
    json_schema: Any = None

    @model_validator(mode="after")
    def _text_only(self) -> "ResponseFormat":
        if self.type != "text":
            raise PydanticCustomError(
                "unsupported_value", "is not supported by this server unless it is 'text'", {"param": "type"}
            )
        if self.json_schema is not None:
            raise conflict("json_schema", "does not go with the type 'text'")
        return self


class ChatCompletionRequest(WireModel):
    """A conversation to answer, and how."""

    model: Annotated[str, Field(min_length=1)]
    """Name of the served model."""
    messages: Annotated[list[AnyMessage], Field(min_length=1)]
    """The conversation so far."""

    stream: bool = False
    """Send the answer as server-sent events while it is generated."""
    stream_options: StreamOptions | None = None
    """Only with `stream`."""
    n: Annotated[int, Field(ge=1, le=16)] = 1
    """How many answers to generate."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest answer, in tokens. Unset: what the context leaves."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Older name of `max_completion_tokens`, which wins."""
    stop: (
        Annotated[
            Annotated[_StopString, Tag("<string>")] | Annotated[list[_StopString], Field(max_length=4), Tag("<list>")],
            Discriminator(lambda value: "<list>" if isinstance(value, list) else "<string>"),
        ]
        | None
    ) = None
    """Where to stop: a string, or up to four."""
    seed: Annotated[int, Field(ge=-_INT64, lt=_INT64)] | None = None
    """Makes sampling repeatable."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    """0: always the most likely token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the most likely tokens with this share of the probability."""
    presence_penalty: _Penalty = 0.0
    """Against tokens that occurred in the answer."""
    frequency_penalty: _Penalty = 0.0
    """Against tokens, by how often they occurred in the answer."""
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], AfterValidator(_token_id_keys)] = Field(
        default={}, max_length=1024
    )
    """Added to the logits of the tokens with these ids."""
    logprobs: bool = False
    """Report the log-probability of each token of the answer."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Also report this many of the most likely tokens; only with `logprobs`."""

    top_k: Annotated[int, Field(ge=-1, lt=1 << 31)] = 0
    """Sample from this many of the most likely tokens; 0 or -1: from all."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Leave out tokens less likely than this share of the most likely one."""
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Divides the logits of tokens that occurred in prompt or answer; 1: none."""
    min_tokens: Annotated[int, Field(ge=0)] = 0
    """No end before this many tokens."""
    ignore_eos: bool = False
    """Go on after the model's end token."""
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(max_length=64)] = []
    """Tokens to stop at, besides the model's own."""
    skip_special_tokens: bool = True
    """Leave special tokens out of the text."""
    include_stop_str_in_output: bool = False
    """Leave the stop string in the text."""
    add_generation_prompt: bool | None = None
    """End the prompt with the opening of the assistant's turn; on unless `continue_final_message`."""
    continue_final_message: bool = False
    """Continue the last message, which is the assistant's, instead of answering it."""
    add_vision_id: bool = False
    """Number the media in the prompt: `Picture 1: `, `Video 1: `."""
    include: list[Literal["media"]] = []
    """media: tell in a `tessera` object what was done to each medium."""

    response_format: ResponseFormat | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1)] | None = None
    # Cannot apply to a model on one's own machine; accepted so that clients which always send them work.
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    reasoning_effort: str | None = None

    tools: Unsupported = None
    tool_choice: Unsupported = None
    parallel_tool_calls: Unsupported = None
    functions: Unsupported = None
    function_call: Unsupported = None
    audio: Unsupported = None
    web_search_options: Unsupported = None
    moderation: Unsupported = None

    @property
    def max_answer_tokens(self) -> int | None:
        """The longest answer the client asks for, or None."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def stop_strings(self) -> list[str]:
        """`stop` as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @model_validator(mode="after")
    def _agree(self) -> "ChatCompletionRequest":
        if self.stream_options is not None and not self.stream:
            raise conflict("stream_options", "is only allowed with 'stream'")
        if self.top_logprobs is not None and not self.logprobs:
            raise conflict("top_logprobs", "is only allowed with 'logprobs'")
        limit = self.max_answer_tokens
        if limit is not None and self.min_tokens > limit:
            raise conflict("min_tokens", f"is above the longest answer of {limit} tokens")
        if self.continue_final_message:
            if self.add_generation_prompt:
                raise conflict("continue_final_message", "does not go with 'add_generation_prompt'")
            if self.messages[-1].role != "assistant":
                raise conflict("continue_final_message", "needs a last message of the role 'assistant'")
        return self
