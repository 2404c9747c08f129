"""Encodes output events as the Messages API has them: a stream of typed events, and the message they add up to. Pure.

Order: message_start; each block's start, deltas and stop in turn; message_delta, message_stop.
"""

from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from server.api.sse import Event
from server.generation.output_events import (
    ArgumentsDelta,
    Finish,
    GenerationEnd,
    GenerationStart,
    OutputEvent,
    TextDelta,
    ToolCallStart,
    Usage,
)
from server.generation.request import GenerationRequest
from server.messages import response as wire


class MessageEncoder:
    """One request's message while it grows.

    Args:
        request: what is generated.
        max_tokens: the longest answer the client requested.
    """

    def __init__(self, request: GenerationRequest, max_tokens: int) -> None:
        """Nothing has come yet."""
        self._id = request.id
        self._model = request.model
        self._max_tokens = max_tokens
        self._blocks: list[_Block] = []
        self._finish: Finish | None = None
        self._usage: Usage | None = None

    def encode(self, event: OutputEvent) -> list[Event]:
        """What to send for an event of a stream."""
        return [Event(made.encode(), made.type) for made in self.add(event)]

    def add(self, event: OutputEvent) -> list[wire.MessageEvent]:
        """Take an event in.

        Returns:
            The events of the Messages API that it brings.
        """
        match event:
            case GenerationStart(usage=counts):
                self._usage = counts
                return [wire.MessageStart(type="message_start", message=self._message([], None))]
            case TextDelta(text=text) if text:
                return [*self._open_text(), self._grow(text)]
            case ToolCallStart(call_id=call_id, name=name):
                return [*self._close(), self._open(_Block(call_id, name))]
            case ArgumentsDelta(text=text):
                return [self._grow(text)]
            case Finish():
                self._finish = event
                return []
            case GenerationEnd(counts):
                self._usage = counts
                return [*self._open_text(only_if_empty=True), *self._close(), *self._end()]
            case _:
                return []

    def message(self) -> wire.AnthropicMessage:
        """The whole message, once every event was added."""
        return self._message([block.content() for block in self._blocks], self._stop())

    def _open_text(self, *, only_if_empty: bool = False) -> list[wire.MessageEvent]:
        """Begin a block of text, unless one is open; no text at all is an answer, too."""
        if self._blocks and (only_if_empty or self._blocks[-1].name is None):
            return []
        return [*self._close(), self._open(_Block())]

    def _open(self, block: "_Block") -> wire.MessageEvent:
        self._blocks.append(block)
        index = len(self._blocks) - 1
        return wire.BlockStart(type="content_block_start", index=index, content_block=block.content())

    def _close(self) -> Iterator[wire.MessageEvent]:
        if self._blocks:
            yield wire.BlockStop(type="content_block_stop", index=len(self._blocks) - 1)

    def _grow(self, text: str) -> wire.MessageEvent:
        block = self._blocks[-1]
        block.texts.append(text)
        return wire.BlockDelta(
            type="content_block_delta",
            index=len(self._blocks) - 1,
            delta=wire.TextGrowth(type="text_delta", text=text)
            if block.name is None
            else wire.InputGrowth(type="input_json_delta", partial_json=text),
        )

    def _end(self) -> list[wire.MessageEvent]:
        stop = self._stop()
        return [
            wire.MessageDelta(type="message_delta", delta=stop, usage=self._counts()),
            wire.MessageStop(type="message_stop"),
        ]

    def _stop(self) -> wire.MessageEnd:
        assert self._finish is not None and self._usage is not None  # every event has come
        reason: wire.StopReason
        match self._finish.reason:
            case "tool_calls":
                reason = "tool_use"
            case "length" if self._usage.output_tokens < self._max_tokens:
                reason = "model_context_window_exceeded"
            case "length":
                reason = "max_tokens"
            case "stop":
                reason = "end_turn" if self._finish.stop_string is None else "stop_sequence"
        return wire.MessageEnd(stop_reason=reason, stop_sequence=self._finish.stop_string)

    def _message(
        self, content: list[wire.TextContent | wire.ToolUseContent], stop: wire.MessageEnd | None
    ) -> wire.AnthropicMessage:
        return wire.AnthropicMessage(
            id=self._id,
            type="message",
            role="assistant",
            model=self._model,
            content=content,
            stop_reason=None if stop is None else stop.stop_reason,
            stop_sequence=None if stop is None else stop.stop_sequence,
            usage=self._counts(),
        )

    def _counts(self) -> wire.MessageUsage:
        assert self._usage is not None  # the first event has it
        return wire.MessageUsage(
            input_tokens=self._usage.prompt_tokens - self._usage.cached_tokens,
            cache_creation_input_tokens=0,
            cache_read_input_tokens=self._usage.cached_tokens,
            output_tokens=self._usage.output_tokens,
        )


class _Block:
    """Text, or a call with its arguments, as far as it has come."""

    def __init__(self, call_id: str = "", name: str | None = None) -> None:
        self.name = name
        """Of the function; None for text."""
        self.texts: list[str] = []
        self._call_id = call_id.replace("call_", "toolu_", 1)

    def content(self) -> wire.TextContent | wire.ToolUseContent:
        text = "".join(self.texts)
        if self.name is None:
            return wire.TextContent(type="text", text=text)
        return wire.ToolUseContent(type="tool_use", id=self._call_id, name=self.name, input=_arguments(text))


def _arguments(text: str) -> dict[str, Any]:
    """A call's arguments as an object; of text that was cut, what is there of it."""
    try:
        value = from_json(text, allow_partial=True) if text else {}
    except ValueError:  # cut within an escape, or numbers no float holds
        return {}
    return value if isinstance(value, dict) else {}
