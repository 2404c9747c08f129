"""Answers of the Messages API: the message, the events of a stream, the count of tokens, and the body of errors."""

from typing import Any, Literal

from server.api.base_models import ResponseModel

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]


class TextContent(ResponseModel):
    """What the assistant says."""

    type: Literal["text"]
    text: str


class ToolUseContent(ResponseModel):
    """A function the client is to call."""

    type: Literal["tool_use"]
    id: str
    """What the block with the result refers to."""
    name: str
    input: dict[str, Any]
    """Not whole where the answer ends with `max_tokens`; empty where the block begins in a stream."""


class MessageUsage(ResponseModel):
    """What a request cost, in tokens."""

    input_tokens: int
    """Of the prompt: computed."""
    cache_creation_input_tokens: int
    """Always 0: keeping a prefix costs nothing here."""
    cache_read_input_tokens: int
    """Of the prompt: taken from the prefix cache."""
    output_tokens: int


class AnthropicMessage(ResponseModel):
    """The answer, whole or as it begins."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextContent | ToolUseContent]
    stop_reason: StopReason | None
    """model_context_window_exceeded: the context was full before `max_tokens` were generated. Null where a stream
    begins."""
    stop_sequence: str | None
    """Which of `stop_sequences` has ended the answer."""
    usage: MessageUsage


class MessageEvent(ResponseModel):
    """An event of a stream."""

    type: str


class MessageStart(MessageEvent):
    """The message begins."""

    type: Literal["message_start"]
    message: AnthropicMessage


class BlockStart(MessageEvent):
    """A block begins."""

    type: Literal["content_block_start"]
    index: int
    content_block: TextContent | ToolUseContent


class TextGrowth(ResponseModel):
    """More text."""

    type: Literal["text_delta"]
    text: str


class InputGrowth(ResponseModel):
    """More of a call's arguments, as JSON text."""

    type: Literal["input_json_delta"]
    partial_json: str


class BlockDelta(MessageEvent):
    """A block grows."""

    type: Literal["content_block_delta"]
    index: int
    delta: TextGrowth | InputGrowth


class BlockStop(MessageEvent):
    """A block is whole."""

    type: Literal["content_block_stop"]
    index: int


class MessageEnd(ResponseModel):
    """Why the message ends."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(MessageEvent):
    """The message ends."""

    type: Literal["message_delta"]
    delta: MessageEnd
    usage: MessageUsage


class MessageStop(MessageEvent):
    """Nothing follows."""

    type: Literal["message_stop"]


class TokenCount(ResponseModel):
    """How long a prompt is."""

    input_tokens: int


class MessagesErrorDetail(ResponseModel):
    """What went wrong."""

    type: str
    """The kind of fault, such as `invalid_request_error`."""
    message: str
    """The fact, for people."""
    details: dict[str, str] | None = None
    """Only of few errors: `error_code`, for programs."""


class MessagesError(MessageEvent):
    """The body of every answer of these routes that is not a success, and the last event of a stream that fails."""

    type: Literal["error"]
    error: MessagesErrorDetail
