"""Answers of `POST /v1/chat/completions`: the completion, and the chunks of a stream."""

from typing import Literal

from server.api.base_models import ResponseModel
from server.generation.output_events import FinishReason
from server.generation.response_fields import TokenLogprob, Usage
from server.prompt.media_report import MediaReport


class Logprobs(ResponseModel):
    """Log-probabilities of a choice, or of a chunk of it."""

    content: list[TokenLogprob]
    refusal: None = None


class Report(ResponseModel):
    """What the server reports beyond the standard, on request by `include`."""

    media: list[MediaReport]


class CalledFunction(ResponseModel):
    """A function and what to call it with."""

    name: str
    arguments: str
    """JSON text; not whole where the answer ends with `length`."""


class ToolCall(ResponseModel):
    """A call the client is to make."""

    id: str
    """What the message with the result refers to."""
    type: Literal["function"]
    function: CalledFunction


class Message(ResponseModel):
    """An answer."""

    role: Literal["assistant"]
    content: str | None
    """Null where there are calls and nothing else."""
    refusal: None
    tool_calls: list[ToolCall] | None = None
    """Only where there are some."""


class Choice(ResponseModel):
    """One of the `n` answers."""

    index: int
    message: Message
    logprobs: Logprobs | None
    finish_reason: FinishReason


class ChatCompletion(ResponseModel):
    """The whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    """Seconds since 1970."""
    model: str
    choices: list[Choice]
    usage: Usage
    tessera: Report | None = None


class FunctionDelta(ResponseModel):
    """What a chunk adds to a call."""

    name: str | None = None
    arguments: str


class ToolCallDelta(ResponseModel):
    """The beginning of a call, with its id, or more of its arguments."""

    index: int
    """Which of the answer's calls."""
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class ChoiceDelta(ResponseModel):
    """What a chunk adds to an answer; the first of a choice has the role."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(ResponseModel):
    """A chunk of one of the `n` answers."""

    index: int
    delta: ChoiceDelta
    logprobs: Logprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(ResponseModel):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    """Seconds since 1970; the same in all chunks."""
    model: str
    choices: list[ChunkChoice]
    """Empty in the last chunk with `include_usage`."""
    usage: Usage | None = None
    """With `include_usage`: null in all chunks but the last."""
    tessera: Report | None = None
