"""Answers of `POST /v1/responses`: the response object, and the events of a stream."""

from typing import Any, Literal

from server.api.base_models import ResponseModel
from server.generation.response_fields import TokenLogprob

ResponseStatus = Literal["in_progress", "completed", "incomplete", "failed"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class ResponseFailure(ResponseModel):
    """Why there is no whole answer."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class IncompleteDetails(ResponseModel):
    """Why the answer ends early."""

    reason: Literal["max_output_tokens"]


class OutputTextPart(ResponseModel):
    """Text of an answer."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    """Always empty."""
    logprobs: list[TokenLogprob]
    """Empty unless requested."""


class OutputMessage(ResponseModel):
    """What the assistant says."""

    id: str
    type: Literal["message"]
    status: ItemStatus
    role: Literal["assistant"]
    content: list[OutputTextPart]


class FunctionCallItem(ResponseModel):
    """A function the client is to call."""

    id: str
    type: Literal["function_call"]
    status: ItemStatus
    call_id: str
    """What the item with the result refers to."""
    name: str
    namespace: str | None = None
    """Of the function; only where it has one."""
    arguments: str
    """JSON text; not whole where the status is `incomplete`."""


OutputItem = OutputMessage | FunctionCallItem


class InputTokensDetails(ResponseModel):
    """Of the prompt's tokens."""

    cached_tokens: int
    """Taken from the prefix cache."""
    cache_write_tokens: int
    """Always 0: keeping a prefix costs nothing here."""
    image_tokens: int
    """Of images, without delimiters."""
    video_tokens: int
    """Of videos, without delimiters."""


class OutputTokensDetails(ResponseModel):
    """Of the answer's tokens."""

    reasoning_tokens: int
    """Always 0."""


class ResponseUsage(ResponseModel):
    """What a request cost, in tokens."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ConversationOf(ResponseModel):
    """The conversation a response belongs to."""

    id: str


class ResponseObject(ResponseModel):
    """The answer, whole or as far as it has come."""

    id: str
    object: Literal["response"]
    created_at: int
    """Seconds since 1970."""
    completed_at: int | None
    """Seconds since 1970; null unless the status is `completed`."""
    status: ResponseStatus
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None
    """Null while the answer grows."""
    instructions: str | None
    max_output_tokens: int | None
    temperature: float
    top_p: float
    top_logprobs: int
    text: dict[str, Any]
    """As requested; the default format is `text`."""
    metadata: dict[str, str]
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, Any]
    tools: list[dict[str, Any]]
    """As requested."""
    tool_choice: str | dict[str, Any]
    """As requested."""
    parallel_tool_calls: bool
    truncation: Literal["disabled"]
    previous_response_id: str | None
    conversation: ConversationOf | None = None
    """Only where the request names one."""
    background: Literal[False]
    store: bool
    """Whether it is remembered, as long as there is room."""


class ResponseEvent(ResponseModel):
    """An event of a stream; `sequence_number` counts from 0."""

    type: str
    sequence_number: int


class LifecycleEvent(ResponseEvent):
    """The response begins or ends."""

    type: Literal[
        "response.created", "response.in_progress", "response.completed", "response.incomplete", "response.failed"
    ]
    response: ResponseObject


class ItemEvent(ResponseEvent):
    """An item of the output begins or ends."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int
    item: OutputItem


class PartEvent(ResponseEvent):
    """A part of a message begins or ends."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    item_id: str
    output_index: int
    content_index: int
    part: OutputTextPart


class TextDeltaEvent(ResponseEvent):
    """The text of a part grows."""

    type: Literal["response.output_text.delta"]
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[TokenLogprob]


class TextDoneEvent(ResponseEvent):
    """The text of a part is whole."""

    type: Literal["response.output_text.done"]
    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[TokenLogprob]


class ArgumentsDeltaEvent(ResponseEvent):
    """The arguments of a call grow."""

    type: Literal["response.function_call_arguments.delta"]
    item_id: str
    output_index: int
    delta: str


class ArgumentsDoneEvent(ResponseEvent):
    """The arguments of a call are whole."""

    type: Literal["response.function_call_arguments.done"]
    item_id: str
    output_index: int
    name: str
    arguments: str


class ErrorEvent(ResponseEvent):
    """The request failed before there was a response."""

    type: Literal["error"]
    message: str
    """The fact, for people."""
    code: str | None
    param: str | None
