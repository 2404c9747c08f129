"""Answers of `POST /v1/chat/completions`: the whole one, and the chunks of a stream.

A field that was not given is left out when encoding (`exclude_unset`), one given as None is written as null; the API
needs both.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

FinishReason = Literal["stop", "length"]
ChatFinishReason = Literal["stop", "length", "tool_calls"]


class ResponseModel(BaseModel):
    """An object the server sends."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    def encode(self) -> bytes:
        """The object as JSON, without the fields that were not given."""
        return self.model_dump_json(exclude_unset=True).encode()


class TopLogprob(ResponseModel):
    """A likely token of one position."""

    token: str
    logprob: float
    """Natural logarithm of the probability, at least -9999."""
    bytes: list[int]
    """UTF-8 bytes of the token; a character may be spread over several tokens."""


class TokenLogprob(TopLogprob):
    """The token of one position, and the most likely ones."""

    top_logprobs: list[TopLogprob]


class Logprobs(ResponseModel):
    """Log-probabilities of a choice, or of a chunk of it."""

    content: list[TokenLogprob]
    refusal: None = None


class PromptTokensDetails(ResponseModel):
    """Of the prompt's tokens."""

    cached_tokens: int
    """Taken from the prefix cache."""
    image_tokens: int
    """Of pictures, without delimiters."""
    video_tokens: int
    """Of clips, without delimiters."""


class Usage(ResponseModel):
    """What a request cost, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class Dimensions(ResponseModel):
    """Size in pixels."""

    width: int
    height: int


class MediaReport(ResponseModel):
    """What was done to one medium."""

    param: str
    """The content part, such as `messages[0].content[1]`."""
    modality: Literal["image", "video"]
    source_size: Dimensions
    """As sent, upright."""
    size: Dimensions
    """As the model sees it."""
    grid: tuple[int, int, int]
    """Temporal slices, rows and columns of 14 px patches."""
    tokens: int
    """Tokens in the prompt, without the two delimiters."""
    frames: int | None
    """Sampled frames of a clip."""
    timestamps: list[float] | None
    """Presentation time of each sampled frame, in seconds."""
    fps: float | None
    """Sampled frames per second of presentation time."""
    notes: list[str]
    """What a person should know."""


class Report(ResponseModel):
    """What the server tells beyond the standard, on request by `include`."""

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
    finish_reason: ChatFinishReason


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
    finish_reason: ChatFinishReason | None


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
