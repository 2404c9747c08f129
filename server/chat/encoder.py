"""Encodes output events as Chat answers: one completion, or the chunks of a stream. Pure."""

import time
from typing import Any

from server.api.sse import Event
from server.chat import response as wire
from server.chat.request import ChatCompletionRequest
from server.generation.output_events import (
    ArgumentsDelta,
    Finish,
    FinishReason,
    GenerationEnd,
    GenerationStart,
    OutputEvent,
    OutputStart,
    PromptEcho,
    SampledToken,
    TextDelta,
    ToolCallStart,
    UsageSoFar,
)
from server.generation.request import GenerationRequest
from server.generation.response_fields import Usage, token_logprobs, usage
from server.prompt.media_report import MediaReport


class CompletionEncoder:
    """One answer as one object.

    Args:
        body: what the client sent.
        request: the same, as it was generated.
    """

    def __init__(self, body: ChatCompletionRequest, request: GenerationRequest) -> None:
        """Nothing has come yet."""
        self._head: dict[str, Any] = {"id": request.id, "created": int(time.time()), "model": request.model}
        self._reports_media = "media" in body.include
        self._extras: dict[str, Any] = {}
        self._choices = [_Choice(request.num_top_logprobs is not None) for _ in range(request.num_outputs)]

    def add(self, event: OutputEvent) -> None:
        """Take an event in."""
        match event:
            case GenerationStart(media=media):
                if self._reports_media:
                    self._extras["tessera"] = wire.Report(media=list(media))
            case GenerationEnd(counts):
                self._extras["usage"] = usage(counts)
            case UsageSoFar() | PromptEcho():
                pass
            case _:
                self._choices[event.index].add(event)

    def completion(self) -> wire.ChatCompletion:
        """The answer, once every event has come."""
        choices = [choice.encode(index) for index, choice in enumerate(self._choices)]
        return wire.ChatCompletion(object="chat.completion", choices=choices, **self._extras, **self._head)


class _Choice:
    """One of the answers while it grows."""

    def __init__(self, reports_logprobs: bool) -> None:
        self._text: list[str] = []
        self._calls: list[tuple[str, str, list[str]]] = []
        """Id, name and arguments of each."""
        self._logprobs: list[SampledToken] | None = [] if reports_logprobs else None
        self._reason: FinishReason = "stop"

    def add(self, event: OutputStart | TextDelta | ToolCallStart | ArgumentsDelta | Finish) -> None:
        match event:
            case TextDelta(text=text):
                self._text.append(text)
            case ToolCallStart(call_id=call_id, name=name):
                self._calls.append((call_id, name, []))
            case ArgumentsDelta(call=call, text=text):
                self._calls[call][2].append(text)
            case Finish(reason=reason):
                self._reason = reason
        if self._logprobs is not None and isinstance(event, TextDelta | ToolCallStart | ArgumentsDelta):
            self._logprobs += event.logprobs

    def encode(self, index: int) -> wire.Choice:
        return wire.Choice(
            index=index,
            message=self._message(),
            logprobs=None
            if self._logprobs is None
            else wire.Logprobs(content=token_logprobs(self._logprobs), refusal=None),
            finish_reason=self._reason,
        )

    def _message(self) -> wire.Message:
        text = "".join(self._text)
        if not self._calls:
            return wire.Message(role="assistant", content=text, refusal=None)
        calls = [
            wire.ToolCall(
                id=call_id,
                type="function",
                function=wire.CalledFunction(name=name, arguments="".join(arguments)),
            )
            for call_id, name, arguments in self._calls
        ]
        return wire.Message(role="assistant", content=text or None, refusal=None, tool_calls=calls)


class ChunkEncoder:
    """One answer as the chunks of a stream.

    Args:
        body: what the client sent.
        request: the same, as it was generated.
    """

    def __init__(self, body: ChatCompletionRequest, request: GenerationRequest) -> None:
        """Nothing has come yet."""
        self._head: dict[str, Any] = {"id": request.id, "created": int(time.time()), "model": request.model}
        self._include_usage = body.include_usage
        self._reports_media = "media" in body.include
        self._may_call = request.may_call
        self._num_unfinished = request.num_outputs
        self._media: tuple[MediaReport, ...] = ()
        self._usage_so_far: Usage | None = None

    def encode(self, event: OutputEvent) -> list[Event]:
        """What to send for an event."""
        return [Event(chunk.encode()) for chunk in self.chunks(event)]

    def chunks(self, event: OutputEvent) -> list[wire.ChatCompletionChunk]:
        """The chunk an event becomes, if any."""
        match event:
            case GenerationStart(media=media):
                self._media = media
                return []
            case PromptEcho():
                return []
            case UsageSoFar(counts):
                self._usage_so_far = usage(counts)
                return []
            case OutputStart(index):
                # Where calls may follow, null is what is left if there is no text.
                opening = wire.ChoiceDelta(role="assistant", content=None if self._may_call else "", refusal=None)
                return [self._chunk(index, opening)]
            case Finish(index, reason):
                self._num_unfinished -= 1
                last = not self._include_usage and not self._num_unfinished
                return [self._chunk(index, wire.ChoiceDelta(), reason=reason, **(self._report() if last else {}))]
            case GenerationEnd(counts):
                if not self._include_usage:
                    return []
                extras = {"usage": usage(counts), **self._report()}
                return [wire.ChatCompletionChunk(object="chat.completion.chunk", choices=[], **extras, **self._head)]
            case _:
                return [self._chunk(event.index, _delta(event), event.logprobs)]

    def _report(self) -> dict[str, Any]:
        return {"tessera": wire.Report(media=list(self._media))} if self._reports_media else {}

    def _chunk(
        self,
        index: int,
        delta: wire.ChoiceDelta,
        logprobs: tuple[SampledToken, ...] = (),
        *,
        reason: FinishReason | None = None,
        **extras: Any,
    ) -> wire.ChatCompletionChunk:
        if self._include_usage:
            extras["usage"] = self._usage_so_far
        choice = wire.ChunkChoice(
            index=index,
            delta=delta,
            logprobs=wire.Logprobs(content=token_logprobs(logprobs), refusal=None) if logprobs else None,
            finish_reason=reason,
        )
        return wire.ChatCompletionChunk(object="chat.completion.chunk", choices=[choice], **extras, **self._head)


def _delta(event: TextDelta | ToolCallStart | ArgumentsDelta) -> wire.ChoiceDelta:
    match event:
        case TextDelta(text=text):
            return wire.ChoiceDelta(content=text)
        case ToolCallStart(call=number, call_id=call_id, name=name):
            function = wire.FunctionDelta(name=name, arguments="")
            call = wire.ToolCallDelta(index=number, id=call_id, type="function", function=function)
        case ArgumentsDelta(call=number, text=text):
            call = wire.ToolCallDelta(index=number, function=wire.FunctionDelta(arguments=text))
    return wire.ChoiceDelta(tool_calls=[call])
