"""Encodes output events as the Responses API has them: a stream of typed events, and the response they add up to. Pure.

Order: created, in_progress; each item of the output in turn (`server/responses/items.py`); completed, incomplete or
failed.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from server.api import sse
from server.core.errors import ApiError, ClientError
from server.generation import output_events as events
from server.generation.output_events import (
    ArgumentsDelta,
    Finish,
    GenerationEnd,
    GenerationStart,
    OutputEvent,
    SampledToken,
    TextDelta,
    ToolCallStart,
)
from server.generation.request import GenerationRequest
from server.generation.response_fields import token_logprobs
from server.responses import response as wire
from server.responses.items import EventParts, GrowingCall, GrowingItem, GrowingMessage
from server.responses.request import ResponseRequest
from server.responses.tools import functions


class ResponseEncoder:
    """One request's response while it grows.

    Args:
        body: what the client sent; the response repeats much of it.
        request: the same, as it was generated.
        stores: whether the response is remembered.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        body: ResponseRequest,
        request: GenerationRequest,
        *,
        stores: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Nothing has come yet."""
        self._body = body
        self._stores = stores
        self._functions = {function.full_name: function for function in functions(body.tools)}
        self._ended: wire.ResponseObject | None = None
        self._clock = clock
        self._id = request.id
        self._created_at = int(clock())
        self._num_events = 0
        self._items: list[GrowingItem] = []
        self._logprobs: list[SampledToken] = []
        """Of tokens that are held back, until it is clear that they are text."""
        self._cut = False
        self._usage: events.Usage | None = None

    def add(self, event: OutputEvent) -> list[wire.ResponseEvent]:
        """Take an event in.

        Returns:
            The events of the Responses API that it brings.
        """
        match event:
            case GenerationStart():
                started = self._response("in_progress")
                return [self._lifecycle(kind, started) for kind in ("response.created", "response.in_progress")]
            case TextDelta() | ToolCallStart() | ArgumentsDelta():
                return self._numbered(self._grow(event))
            case Finish(reason=reason):
                self._cut = reason == "length"
                return []
            case GenerationEnd(usage):
                self._usage = usage
                ended = self._numbered(self._end())
                self._ended = self._response("incomplete" if self._cut else "completed")
                return [*ended, self._lifecycle(f"response.{self._ended.status}", self._ended)]
            case _:
                return []

    def encode_failure(self, error: ApiError) -> sse.Event:
        """The last event of a stream whose request failed: an error, or the end of a response that had started."""
        made = self._failure(error)
        return sse.Event(made.encode(), made.type)

    def response(self) -> wire.ResponseObject:
        """The whole response, once every event was added."""
        assert self._ended is not None
        return self._ended

    def _failure(self, error: ApiError) -> wire.ResponseEvent:
        if not self._num_events:
            fields = {"message": error.message, "code": error.code, "param": error.param}
            return self._event(wire.ErrorEvent, "error", fields)
        code = "server_error"
        if isinstance(error, ClientError):
            code = "rate_limit_exceeded" if error.status == 429 else "invalid_prompt"
        failure = wire.ResponseFailure.model_validate({"code": code, "message": error.message})
        return self._lifecycle("response.failed", self._response("failed", error=failure))

    def _grow(self, event: TextDelta | ToolCallStart | ArgumentsDelta) -> list[EventParts]:
        parts: list[EventParts] = []
        self._logprobs += event.logprobs
        text = event.text if isinstance(event, TextDelta) else ""
        if text or (self._logprobs and isinstance(self._current, GrowingMessage)):
            parts += self._grow_message(text)
        if not isinstance(event, TextDelta):
            self._logprobs.clear()  # outside of messages, the tokens of calls have no place to be reported in
            parts += self._grow_call(event)
        return parts

    def _grow_call(self, event: ToolCallStart | ArgumentsDelta) -> list[EventParts]:
        if isinstance(event, ToolCallStart):
            function = self._functions.get(event.name)
            name, namespace = (event.name, None) if function is None else (function.tool.name, function.namespace)
            return self._begin(GrowingCall(len(self._items), event.call_id, name, namespace))
        assert isinstance(self._current, GrowingCall)
        return [self._current.grow(event.text)]

    def _grow_message(self, text: str) -> list[EventParts]:
        parts: list[EventParts] = []
        message = self._current
        if not isinstance(message, GrowingMessage):
            message = GrowingMessage(len(self._items))
            parts += self._begin(message)
        parts.append(message.grow(text, token_logprobs(self._logprobs)))
        self._logprobs = []
        return parts

    @property
    def _current(self) -> GrowingItem | None:
        return self._items[-1] if self._items else None

    def _begin(self, item: GrowingItem) -> list[EventParts]:
        """End the current item, if any, and begin another one."""
        ended = [] if self._current is None else self._current.closing("completed")
        self._items.append(item)
        return [*ended, *item.opening()]

    def _end(self) -> list[EventParts]:
        started: list[EventParts] = []
        if not self._items:  # no text, which is an answer, too
            started = self._grow_message("") if self._logprobs else self._begin(GrowingMessage(0))
        return [*started, *self._items[-1].closing("incomplete" if self._cut else "completed")]

    def _numbered(self, parts: Iterable[EventParts]) -> list[wire.ResponseEvent]:
        return [self._event(model, kind, fields) for model, kind, fields in parts]

    def _lifecycle(self, kind: str, response: wire.ResponseObject) -> wire.ResponseEvent:
        return self._event(wire.LifecycleEvent, kind, {"response": response})

    def _event(self, model: type[wire.ResponseEvent], kind: str, fields: dict[str, Any]) -> wire.ResponseEvent:
        event = model(type=kind, sequence_number=self._num_events, **fields)
        self._num_events += 1
        return event

    def _output(self, status: wire.ResponseStatus) -> list[wire.OutputItem]:
        if status == "in_progress" or not self._items:
            return []
        *whole, last = self._items
        ended = last.item("completed" if status == "completed" else "incomplete")
        return [*(item.item("completed") for item in whole), ended]

    def _response(self, status: wire.ResponseStatus, error: wire.ResponseFailure | None = None) -> wire.ResponseObject:
        body = self._body
        return wire.ResponseObject(
            id=self._id,
            object="response",
            created_at=self._created_at,
            completed_at=int(self._clock()) if status == "completed" else None,
            status=status,
            error=error,
            incomplete_details=wire.IncompleteDetails(reason="max_output_tokens") if status == "incomplete" else None,
            model=body.model,
            output=self._output(status),
            usage=None if self._usage is None else _usage(self._usage),
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            top_logprobs=body.top_logprobs or 0,
            text=_text(body),
            metadata=body.metadata or {},
            user=body.user,
            safety_identifier=body.safety_identifier,
            prompt_cache_key=body.prompt_cache_key,
            reasoning=body.reasoning or {"effort": None, "summary": None},
            tools=[tool.model_dump(exclude_unset=True) for tool in body.tools],
            tool_choice=_tool_choice(body),
            parallel_tool_calls=body.parallel_tool_calls,
            truncation="disabled",
            previous_response_id=body.previous_response_id,
            background=False,
            store=self._stores,
            **_conversation(body),
        )


def _conversation(body: ResponseRequest) -> dict[str, Any]:
    return {} if body.conversation_id is None else {"conversation": wire.ConversationOf(id=body.conversation_id)}


def _tool_choice(body: ResponseRequest) -> str | dict[str, Any]:
    choice = body.tool_choice or "auto"
    return choice if isinstance(choice, str) else choice.model_dump(exclude_unset=True)


def _text(body: ResponseRequest) -> dict[str, Any]:
    text = {} if body.text is None else body.text.model_dump(by_alias=True, exclude_unset=True)
    return {"format": {"type": "text"}, **text}


def _usage(usage: events.Usage) -> wire.ResponseUsage:
    return wire.ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=wire.InputTokensDetails(
            cached_tokens=usage.cached_tokens,
            cache_write_tokens=0,
            image_tokens=usage.image_tokens,
            video_tokens=usage.video_tokens,
        ),
        output_tokens=usage.output_tokens,
        output_tokens_details=wire.OutputTokensDetails(reasoning_tokens=0),
        total_tokens=usage.prompt_tokens + usage.output_tokens,
    )
