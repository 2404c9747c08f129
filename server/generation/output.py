"""Folds the engine's deltas into output events: text, calls of functions, log-probabilities, token counts. Pure.

Where functions may be called, text is held back as long as it may belong to a call (`server/tools/parser.py`). A delta
without text, as a stop string or the end token may leave it, makes no event unless it ends its output or brings
log-probabilities.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from model_executor.engine import Delta, PositionLogprobs, Prompt, TokenLogprob
from model_executor.engine import FinishReason as EngineFinishReason
from model_executor.processor.tokenizer import Tokenizer
from server.generation.output_events import (
    ArgumentsDelta,
    Finish,
    FinishReason,
    LikelyToken,
    OutputEvent,
    OutputStart,
    PromptEcho,
    SampledToken,
    TextDelta,
    ToolCallStart,
    Usage,
)
from server.tools.parser import ArgumentsPiece, CallPiece, TextPiece, ToolCallParser

LOWEST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON does not have."""


class UnfinishedOutputError(Exception):
    """The engine ended its stream before every output had a finish reason: a fault of ours."""


@dataclass(slots=True)
class _Output:
    parser: ToolCallParser | None
    started: bool = False
    ended: EngineFinishReason | None = None
    num_calls: int = 0

    @property
    def finish_reason(self) -> FinishReason | None:
        """A call that was cut is not one to make."""
        calls = self.num_calls and self.parser is not None and not self.parser.is_cut
        return "tool_calls" if self.ended == "stop" and calls else self.ended

    def pieces(self, delta: Delta) -> list[TextPiece | CallPiece | ArgumentsPiece]:
        if self.parser is None:
            return [TextPiece(delta.text)] if delta.text else []
        return [*self.parser.feed(delta.text), *(self.parser.end() if delta.finish_reason is not None else [])]


class OutputReader:
    """Reads the deltas of one request.

    Args:
        prompts: what the engine continues.
        num_outputs: how many answers each prompt gets; those of the first prompt are numbered first.
        may_call: whether calls of functions are looked for in the text.
        num_top_logprobs: alternatives to report per token; None where no log-probabilities are requested.
        tokenizer: turns token ids into bytes.
        end_token_ids: ids that end an output; they are no part of its log-probabilities.
        echoes: the text of each prompt, with which outputs begin; None where they do not.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        *,
        num_outputs: int,
        may_call: bool,
        num_top_logprobs: int | None,
        tokenizer: Tokenizer,
        end_token_ids: Collection[int],
        echoes: Sequence[str] | None = None,
    ) -> None:
        """Nothing has come yet."""
        self._prompts = prompts
        self._num_outputs = num_outputs
        self._outputs = [_Output(ToolCallParser() if may_call else None) for _ in range(len(prompts) * num_outputs)]
        self._num_cached_tokens = [0] * len(prompts)
        self._num_output_tokens = 0
        self._num_top_logprobs = num_top_logprobs
        self._tokenizer = tokenizer
        self._echoes = echoes
        self._prompt_tokens: list[tuple[SampledToken, ...] | None] = [None] * len(prompts)
        """The log-probabilities of each prompt, once they have come."""
        self._end_token_ids = frozenset(end_token_ids)

    def read(self, prompt: int, delta: Delta) -> list[OutputEvent]:
        """The events of one delta.

        Args:
            prompt: which prompt it continues, from 0.
            delta: what the engine added.
        """
        index = prompt * self._num_outputs + delta.index
        output = self._outputs[index]
        self._num_output_tokens += len(delta.token_ids)
        self._num_cached_tokens[prompt] = max(self._num_cached_tokens[prompt], delta.num_cached_tokens)
        output.ended = delta.finish_reason or output.ended
        events: list[OutputEvent] = []
        if not output.started:
            output.started = True
            events += [OutputStart(index), *self._echo(index, prompt, delta)]
        logprobs = self._logprobs(delta)
        for piece in output.pieces(delta) or ([TextPiece("")] if logprobs else []):
            events.append(_event(index, output, piece, logprobs))
            logprobs = ()
        if delta.finish_reason is not None:
            events.append(Finish(index, output.finish_reason or delta.finish_reason, delta.stop_string))
        return events

    def usage(self) -> Usage:
        """What the request costs so far."""
        media = [item for prompt in self._prompts for item in prompt.media]
        return Usage(
            prompt_tokens=sum(len(prompt.token_ids) for prompt in self._prompts),
            image_tokens=sum(item.num_tokens for item in media if item.modality == "image"),
            video_tokens=sum(item.num_tokens for item in media if item.modality == "video"),
            cached_tokens=sum(self._num_cached_tokens),
            output_tokens=self._num_output_tokens,
        )

    def require_finished(self) -> None:
        """Check, once the engine's stream has ended, that it kept its promise.

        Raises:
            UnfinishedOutputError: see the class.
        """
        if any(output.ended is None for output in self._outputs):
            raise UnfinishedOutputError("the engine's stream ended before every output was finished")

    def _echo(self, index: int, prompt: int, delta: Delta) -> list[OutputEvent]:
        if self._echoes is None:
            return []
        text = self._echoes[prompt]
        if self._num_top_logprobs is None:
            return [PromptEcho(index, text)]
        first = self._tokenizer.token_bytes(self._prompts[prompt].token_ids[0])
        tokens = self._prompt_tokens[prompt]
        if tokens is None:
            tokens = tuple(self._sampled(position) for position in delta.prompt_logprobs or [])
            self._prompt_tokens[prompt] = tokens
        return [PromptEcho(index, text, first, tokens)]

    def _logprobs(self, delta: Delta) -> tuple[SampledToken, ...]:
        if self._num_top_logprobs is None:
            return ()
        positions = delta.logprobs or []
        if delta.finish_reason == "stop" and positions and positions[-1].sampled.token_id in self._end_token_ids:
            positions = positions[:-1]
        return tuple(self._sampled(position) for position in positions)

    def _sampled(self, position: PositionLogprobs) -> SampledToken:
        token = self._likely(position.sampled)
        special = self._tokenizer.special_id(token.data.decode("utf-8", "replace"))
        return SampledToken(
            token.data,
            token.logprob,
            top=tuple(self._likely(one) for one in position.top[: self._num_top_logprobs]),
            is_special=special is not None and not self._tokenizer.decode([special]),
        )

    def _likely(self, token: TokenLogprob) -> LikelyToken:
        # Written so that not-a-number, too, becomes the lowest.
        logprob = max(LOWEST_LOGPROB, token.logprob)
        return LikelyToken(self._tokenizer.token_bytes(token.token_id), logprob)


def _event(
    index: int,
    output: _Output,
    piece: TextPiece | CallPiece | ArgumentsPiece,
    logprobs: tuple[SampledToken, ...],
) -> OutputEvent:
    match piece:
        case TextPiece(text):
            return TextDelta(index, text, logprobs)
        case CallPiece(name):
            output.num_calls += 1
            return ToolCallStart(index, output.num_calls - 1, f"call_{uuid.uuid4().hex[:24]}", name, logprobs)
        case ArgumentsPiece(text):
            return ArgumentsDelta(index, output.num_calls - 1, text, logprobs)
