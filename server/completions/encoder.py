"""Encodes output events as the older completions object: one for all, or one per event of a stream. Pure."""

import codecs
import time
from collections.abc import Iterable
from typing import Any

from model_executor.engine import FinishReason
from server.api.sse import Event
from server.completions.protocol import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from server.generation.output_events import (
    Finish,
    GenerationEnd,
    OutputEvent,
    PromptEcho,
    SampledToken,
    TextDelta,
    UsageSoFar,
)
from server.generation.request import GenerationRequest
from server.generation.response_fields import Usage, usage


class CompletionEncoder:
    """One request's answer.

    Args:
        body: what the client sent.
        request: the same, as it was generated.
    """

    def __init__(self, body: CompletionRequest, request: GenerationRequest) -> None:
        """Nothing has come yet."""
        self._head: dict[str, Any] = {"id": request.id, "created": int(time.time()), "model": request.model}
        self._include_usage = body.include_usage
        reports_logprobs = body.logprobs is not None
        self._choices = [
            _Choice(index, _Logprobs(body.skip_special_tokens) if reports_logprobs else None)
            for index in range(request.num_outputs)
        ]
        self._usage: dict[str, Any] = {}
        self._usage_so_far: Usage | None = None

    def encode(self, event: OutputEvent) -> list[Event]:
        """What to send for an event of a stream."""
        match event:
            case PromptEcho(index=index):
                return [self._chunk(self._choices[index].encode_echo(event))]
            case TextDelta(index=index, text=text, logprobs=logprobs):
                return [self._chunk(self._choices[index].encode(text, logprobs))]
            case Finish(index=index, reason=reason):
                return [self._chunk(self._choices[index].encode("", (), _finish_reason(reason)))]
            case UsageSoFar(counts):
                self._usage_so_far = usage(counts)
                return []
            case GenerationEnd(counts) if self._include_usage:
                return [Event(self._completion([], usage=usage(counts)).encode())]
            case _:
                return []

    def add(self, event: OutputEvent) -> None:
        """Take in an event of an answer that is sent as a whole."""
        match event:
            case PromptEcho(index=index) | TextDelta(index=index):
                self._choices[index].add(event)
            case Finish(index=index, reason=reason):
                self._choices[index].reason = _finish_reason(reason)
            case GenerationEnd(counts):
                self._usage = {"usage": usage(counts)}
            case _:
                pass

    def completion(self) -> Completion:
        """The answer, once every event was added."""
        return self._completion([choice.whole() for choice in self._choices], **self._usage)

    def _chunk(self, choice: CompletionChoice) -> Event:
        return Event(
            self._completion([choice], **({"usage": self._usage_so_far} if self._include_usage else {})).encode()
        )

    def _completion(self, choices: list[CompletionChoice], **extras: Any) -> Completion:
        return Completion(object="text_completion", choices=choices, **extras, **self._head)


class _Choice:
    """One of the answers while it grows."""

    def __init__(self, index: int, logprobs: "_Logprobs | None") -> None:
        self.reason: FinishReason | None = None
        self._index = index
        self._logprobs = logprobs
        self._text: list[str] = []
        self._prompt: PromptEcho | None = None
        self._tokens: list[SampledToken] = []

    def add(self, event: PromptEcho | TextDelta) -> None:
        self._text.append(event.text)
        if isinstance(event, PromptEcho):
            self._prompt = event
        else:
            self._tokens += event.logprobs

    def whole(self) -> CompletionChoice:
        logprobs = None if self._logprobs is None else self._logprobs.encode(self._tokens, self._prompt)
        text = "".join(self._text)
        return CompletionChoice(index=self._index, text=text, logprobs=logprobs, finish_reason=self.reason)

    def encode_echo(self, prompt: PromptEcho) -> CompletionChoice:
        logprobs = None if self._logprobs is None else self._logprobs.encode((), prompt)
        return CompletionChoice(index=self._index, text=prompt.text, logprobs=logprobs, finish_reason=None)

    def encode(
        self, text: str, tokens: tuple[SampledToken, ...], reason: FinishReason | None = None
    ) -> CompletionChoice:
        logprobs = self._logprobs.encode(tokens) if tokens and self._logprobs is not None else None
        return CompletionChoice(index=self._index, text=text, logprobs=logprobs, finish_reason=reason)


class _Logprobs:
    """One output's log-probabilities in the older form, which says where in the text each token begins."""

    def __init__(self, skip_special_tokens: bool) -> None:
        self._skip_special_tokens = skip_special_tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_chars = 0

    def encode(self, tokens: Iterable[SampledToken], prompt: PromptEcho | None = None) -> CompletionLogprobs:
        """The log-probabilities of the next tokens, after those of the prompt if it is there."""
        answer = list(tokens)
        echoed = [] if prompt is None else list(prompt.logprobs)
        first = [] if prompt is None else [prompt.first]
        return CompletionLogprobs(
            tokens=[_name(data) for data in (*first, *(token.data for token in (*echoed, *answer)))],
            token_logprobs=[*(None for _ in first), *(token.logprob for token in (*echoed, *answer))],
            top_logprobs=[*(None for _ in first), *(_top(token) for token in (*echoed, *answer))],
            text_offset=[
                *(self._advance(data) for data in first),
                *(self._advance(token.data) for token in echoed),
                *(self._advance(b"" if self._is_left_out(token) else token.data) for token in answer),
            ],
        )

    def _is_left_out(self, token: SampledToken) -> bool:
        """Whether an answer's text lacks the token; a prompt is echoed whole."""
        return token.is_special and self._skip_special_tokens

    def _advance(self, data: bytes) -> int:
        """Where a token begins, of which this is in the text."""
        offset = self._num_chars
        self._num_chars += len(self._decoder.decode(data))
        return offset


def _top(token: SampledToken) -> dict[str, float]:
    return {_name(likely.data): likely.logprob for likely in (*token.top, token)}


def _name(data: bytes) -> str:
    """A token's text, or its bytes where they are no text by themselves."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _finish_reason(reason: str) -> FinishReason:
    return "length" if reason == "length" else "stop"
