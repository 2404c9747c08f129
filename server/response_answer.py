"""A chat answer's chunks as the Responses API tells them: events in order, and the response they add up to. Pure.

Order: created, in_progress; the item and its part are added; deltas; text, part and item are done; completed,
incomplete or failed.
"""

import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from server.errors import ApiError, ClientError
from server.protocol import responses as wire
from server.protocol.chat_response import ChatCompletionChunk, ChatFinishReason, TokenLogprob, Usage
from server.protocol.responses_request import ResponseRequest

Event = TypeVar("Event", bound=wire.ResponseEvent)

_PLACE: dict[str, Any] = {"output_index": 0, "content_index": 0}


class ResponseAnswer:
    """One request's response while it grows.

    Args:
        request: what was asked; the response repeats much of it.
        clock: seconds since 1970.
    """

    def __init__(self, request: ResponseRequest, clock: Callable[[], float] = time.time) -> None:
        """See the class."""
        self._request = request
        self._clock = clock
        self._id = f"resp_{uuid.uuid4().hex}"
        self._item_id = f"msg_{uuid.uuid4().hex}"
        self._created_at = int(clock())
        self._model = request.model
        self._num_events = 0
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._finish_reason: ChatFinishReason | None = None
        self._usage: Usage | None = None

    def add(self, chunk: ChatCompletionChunk) -> list[wire.ResponseEvent]:
        """The events one chunk brings; the last chunk is the one with the token counts."""
        self._usage = chunk.usage or self._usage
        events = [] if self._num_events else self._opening()
        for choice in chunk.choices:
            text = choice.delta.content or ""
            logprobs = choice.logprobs.content if choice.logprobs else []
            self._finish_reason = choice.finish_reason or self._finish_reason
            if text or logprobs:
                self._text.append(text)
                self._logprobs += logprobs
                place = {"item_id": self._item_id, **_PLACE}
                kind = "response.output_text.delta"
                events.append(self._event(wire.TextDeltaEvent, kind, delta=text, logprobs=logprobs, **place))
        if chunk.usage is not None:
            events += self._closing()
        return events

    def failed(self, error: ApiError) -> wire.ResponseEvent:
        """The last event where the request failed: an error, or the end of a response that had begun."""
        if not self._num_events:
            error_fields = {"message": error.message, "code": error.code, "param": error.param}
            return self._event(wire.ErrorEvent, "error", **error_fields)
        code = "server_error"
        if isinstance(error, ClientError):
            code = "rate_limit_exceeded" if error.status == 429 else "invalid_prompt"
        failure = wire.ResponseFailure.model_validate({"code": code, "message": error.message})
        return self._lifecycle("response.failed", self._response("failed", error=failure))

    def response(self) -> wire.ResponseObject:
        """The whole response, once every chunk was added."""
        return self._response("incomplete" if self._finish_reason == "length" else "completed")

    def _opening(self) -> list[wire.ResponseEvent]:
        started = self._response("in_progress")
        item = self._item("in_progress", [])
        part = wire.OutputTextPart(type="output_text", text="", annotations=[], logprobs=[])
        place = {"item_id": self._item_id, **_PLACE}
        return [
            self._lifecycle("response.created", started),
            self._lifecycle("response.in_progress", started),
            self._event(wire.ItemEvent, "response.output_item.added", output_index=0, item=item),
            self._event(wire.PartEvent, "response.content_part.added", part=part, **place),
        ]

    def _closing(self) -> list[wire.ResponseEvent]:
        response = self.response()
        item = response.output[0]
        part = item.content[0]
        place = {"item_id": self._item_id, **_PLACE}
        done = "response.output_text.done"
        return [
            self._event(wire.TextDoneEvent, done, text=part.text, logprobs=part.logprobs, **place),
            self._event(wire.PartEvent, "response.content_part.done", part=part, **place),
            self._event(wire.ItemEvent, "response.output_item.done", output_index=0, item=item),
            self._lifecycle(f"response.{response.status}", response),
        ]

    def _lifecycle(self, kind: str, response: wire.ResponseObject) -> wire.ResponseEvent:
        return self._event(wire.LifecycleEvent, kind, response=response)

    def _event(self, model: type[Event], kind: str, **fields: Any) -> Event:
        event = model(type=kind, sequence_number=self._num_events, **fields)
        self._num_events += 1
        return event

    def _item(self, status: wire.ItemStatus, content: list[wire.OutputTextPart]) -> wire.OutputMessage:
        return wire.OutputMessage(id=self._item_id, type="message", status=status, role="assistant", content=content)

    def _output(self, status: wire.ResponseStatus) -> list[wire.OutputMessage]:
        if status == "in_progress":
            return []
        text = "".join(self._text)
        part = wire.OutputTextPart(type="output_text", text=text, annotations=[], logprobs=self._logprobs)
        return [self._item("completed" if status == "completed" else "incomplete", [part])]

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
            model=self._model,
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
            tools=[],
            tool_choice="auto",
            parallel_tool_calls=True,
            truncation="disabled",
            previous_response_id=None,
            background=False,
            store=False,
        )


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
