"""A chat answer's chunks as the Responses API tells them: events in order, and the response they add up to. Pure.

Order: created, in_progress; each item of the output in turn (`server/responses/items.py`); completed, incomplete or
failed.
"""

import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from server.chat.response import ChatCompletionChunk, ChunkChoice, TokenLogprob, Usage
from server.core.errors import ApiError, ClientError
from server.responses import response as wire
from server.responses.items import EventParts, GrowingCall, GrowingItem, GrowingMessage
from server.responses.request import ResponseRequest


class ResponseAnswer:
    """One request's response while it grows.

    Args:
        request: what was asked; the response repeats much of it.
        clock: seconds since 1970.
    """

    def __init__(self, request: ResponseRequest, clock: Callable[[], float] = time.time) -> None:
        self._request = request
        self._clock = clock
        self._id = f"resp_{uuid.uuid4().hex}"
        self._created_at = int(clock())
        self._num_events = 0
        self._items: list[GrowingItem] = []
        self._logprobs: list[TokenLogprob] = []
        """Of tokens that are held back, until it is clear that they are text."""
        self._cut = False
        self._usage: Usage | None = None

    def add(self, chunk: ChatCompletionChunk) -> list[wire.ResponseEvent]:
        """The events one chunk brings; the last chunk is the one with the token counts."""
        self._usage = chunk.usage or self._usage
        events: list[wire.ResponseEvent] = []
        if not self._num_events:
            started = self._response("in_progress")
            events += [self._lifecycle(kind, started) for kind in ("response.created", "response.in_progress")]
        for choice in chunk.choices:
            self._cut = self._cut or choice.finish_reason == "length"
            events += self._numbered(self._grown(choice))
        if chunk.usage is not None:
            events += self._numbered(self._ended())
            response = self.response()
            events.append(self._lifecycle(f"response.{response.status}", response))
        return events

    def failed(self, error: ApiError) -> wire.ResponseEvent:
        """The last event where the request failed: an error, or the end of a response that had begun."""
        if not self._num_events:
            fields = {"message": error.message, "code": error.code, "param": error.param}
            return self._event(wire.ErrorEvent, "error", fields)
        code = "server_error"
        if isinstance(error, ClientError):
            code = "rate_limit_exceeded" if error.status == 429 else "invalid_prompt"
        failure = wire.ResponseFailure.model_validate({"code": code, "message": error.message})
        return self._lifecycle("response.failed", self._response("failed", error=failure))

    def response(self) -> wire.ResponseObject:
        """The whole response, once every chunk was added."""
        return self._response("incomplete" if self._cut else "completed")

    def _grown(self, choice: ChunkChoice) -> list[EventParts]:
        parts: list[EventParts] = []
        self._logprobs += choice.logprobs.content if choice.logprobs else []
        if choice.delta.content or (self._logprobs and isinstance(self._current, GrowingMessage)):
            parts += self._said(choice.delta.content or "")
        for call in choice.delta.tool_calls or []:
            self._logprobs.clear()  # the tokens of calls have no place to be told in
            if call.id is not None:
                parts += self._begin(GrowingCall(len(self._items), call.id, call.function.name or ""))
            if call.function.arguments:
                assert isinstance(self._current, GrowingCall)
                parts.append(self._current.grow(call.function.arguments))
        return parts

    def _said(self, text: str) -> list[EventParts]:
        parts: list[EventParts] = []
        message = self._current
        if not isinstance(message, GrowingMessage):
            message = GrowingMessage(len(self._items))
            parts += self._begin(message)
        parts.append(message.grow(text, self._logprobs))
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

    def _ended(self) -> list[EventParts]:
        begun: list[EventParts] = []
        if not self._items:  # nothing was said, which is an answer, too
            begun = self._said("") if self._logprobs else self._begin(GrowingMessage(0))
        return [*begun, *self._items[-1].closing("incomplete" if self._cut else "completed")]

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
        asked = self._request
        return wire.ResponseObject(
            id=self._id,
            object="response",
            created_at=self._created_at,
            completed_at=int(self._clock()) if status == "completed" else None,
            status=status,
            error=error,
            incomplete_details=wire.IncompleteDetails(reason="max_output_tokens") if status == "incomplete" else None,
            model=asked.model,
            output=self._output(status),
            usage=None if self._usage is None else _usage(self._usage),
            instructions=asked.instructions,
            max_output_tokens=asked.max_output_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_logprobs=asked.top_logprobs or 0,
            text=_text(asked),
            metadata=asked.metadata or {},
            user=asked.user,
            safety_identifier=asked.safety_identifier,
            prompt_cache_key=asked.prompt_cache_key,
            reasoning=asked.reasoning or {"effort": None, "summary": None},
            tools=[tool.model_dump(exclude_unset=True) for tool in asked.tools],
            tool_choice=_tool_choice(asked),
            parallel_tool_calls=asked.parallel_tool_calls,
            truncation="disabled",
            previous_response_id=None,
            background=False,
            store=False,
        )


def _tool_choice(asked: ResponseRequest) -> str | dict[str, Any]:
    choice = asked.tool_choice or "auto"
    return choice if isinstance(choice, str) else choice.model_dump()


def _text(asked: ResponseRequest) -> dict[str, Any]:
    given = {} if asked.text is None else asked.text.model_dump(by_alias=True, exclude_unset=True)
    return {"format": {"type": "text"}, **given}


def _usage(usage: Usage) -> wire.ResponseUsage:
    details = usage.prompt_tokens_details
    return wire.ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=wire.InputTokensDetails(
            cached_tokens=details.cached_tokens,
            cache_write_tokens=0,
            image_tokens=details.image_tokens,
            video_tokens=details.video_tokens,
        ),
        output_tokens=usage.completion_tokens,
        output_tokens_details=wire.OutputTokensDetails(reasoning_tokens=0),
        total_tokens=usage.total_tokens,
    )
