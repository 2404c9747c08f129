"""The engine's deltas as the API's answer: folded into one object, or one by one as chunks. Pure.

A stop string or the model's end token may leave a delta without text; such a delta makes no chunk of its own unless it
ends its choice or brings log-probabilities. What each choice is, and which functions
it calls, `server/generation/choice.py` keeps.
"""

from collections.abc import Collection
from typing import Any

from model_executor.engine import Delta, PositionLogprobs, TokenLogprob
from model_executor.processor.tokenizer import Tokenizer
from server.chat import response as wire
from server.generation.choice import Choice
from server.tools.parser import CallReader

LOWEST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON does not have."""


class UnfinishedAnswerError(Exception):
    """The engine ended its stream before every choice had a finish reason: a fault of ours."""


class Answer:
    """One request's answer while it grows.

    Args:
        id_: the completion's id.
        created: when it was asked, in seconds since 1970.
        model: the served name.
        num_choices: how many answers were asked for.
        num_prompt_tokens: length of the prompt.
        num_image_tokens: of these, of pictures.
        num_video_tokens: of these, of clips.
        num_top_logprobs: alternatives to tell per token; None where no log-probabilities were asked for.
        may_call: whether calls of functions are looked for in the text.
        include_usage: put `usage` into the chunks.
        report: what was done to media, where it was asked for.
        tokenizer: turns token ids into bytes.
        end_token_ids: ids that end an answer; they are no part of its log-probabilities.
    """

    def __init__(
        self,
        *,
        id_: str,
        created: int,
        model: str,
        num_choices: int,
        num_prompt_tokens: int,
        num_image_tokens: int,
        num_video_tokens: int,
        num_top_logprobs: int | None,
        may_call: bool = False,
        include_usage: bool,
        report: wire.Report | None,
        tokenizer: Tokenizer,
        end_token_ids: Collection[int],
    ) -> None:
        self.num_answer_tokens = 0
        self._head: dict[str, Any] = {"id": id_, "created": created, "model": model}
        self._choices = [Choice(CallReader() if may_call else None) for _ in range(num_choices)]
        self._num_prompt_tokens = num_prompt_tokens
        self._num_media_tokens = (num_image_tokens, num_video_tokens)
        self._num_cached_tokens = 0
        self._num_top = num_top_logprobs
        self._include_usage = include_usage
        self._report: dict[str, Any] = {} if report is None else {"tessera": report}
        self._tokenizer = tokenizer
        self._end_token_ids = frozenset(end_token_ids)

    def add(self, delta: Delta) -> None:
        """Fold one delta in, for `completion`."""
        choice = self._count(delta)
        choice.read(delta)
        choice.logprobs += self._logprobs(delta)

    def completion(self) -> wire.ChatCompletion:
        """The whole answer.

        Raises:
            UnfinishedAnswerError: see the class.
        """
        self.require_finished()
        return wire.ChatCompletion(
            object="chat.completion",
            choices=[
                wire.Choice(
                    index=index,
                    message=choice.message(),
                    logprobs=self._wrapped(choice.logprobs),
                    finish_reason=choice.finish_reason,
                )
                for index, choice in enumerate(self._choices)
                if choice.finish_reason is not None
            ],
            usage=self.usage(),
            **self._report,
            **self._head,
        )

    def chunks(self, delta: Delta) -> list[wire.ChatCompletionChunk]:
        """What to send for one delta: the opening of a choice, its new text, its end."""
        choice = self._count(delta)
        chunks = []
        if not choice.started:
            choice.started = True
            chunks.append(self._chunk(delta.index, choice.opening()))
        logprobs = self._logprobs(delta)
        additions = choice.read(delta)
        if logprobs and not additions:
            additions.append(wire.ChoiceDelta(content=""))
        for addition in additions:
            chunks.append(self._chunk(delta.index, addition, logprobs))
            logprobs = []
        if delta.finish_reason is not None:
            last = not self._include_usage and self._finished
            chunks.append(self._chunk(delta.index, wire.ChoiceDelta(), finish_reason=choice.finish_reason, report=last))
        return chunks

    def last_chunk(self) -> wire.ChatCompletionChunk | None:
        """The chunk with the token counts, where they were asked for.

        Raises:
            UnfinishedAnswerError: see the class.
        """
        self.require_finished()
        if not self._include_usage:
            return None
        return wire.ChatCompletionChunk(
            object="chat.completion.chunk", choices=[], usage=self.usage(), **self._report, **self._head
        )

    def usage(self) -> wire.Usage:
        """What the request cost so far."""
        num_image_tokens, num_video_tokens = self._num_media_tokens
        return wire.Usage(
            prompt_tokens=self._num_prompt_tokens,
            completion_tokens=self.num_answer_tokens,
            total_tokens=self._num_prompt_tokens + self.num_answer_tokens,
            prompt_tokens_details=wire.PromptTokensDetails(
                cached_tokens=self._num_cached_tokens, image_tokens=num_image_tokens, video_tokens=num_video_tokens
            ),
        )

    def require_finished(self) -> None:
        """Check that the engine kept its promise.

        Raises:
            UnfinishedAnswerError: see the class.
        """
        if not self._finished:
            raise UnfinishedAnswerError("the engine's stream ended before every choice was finished")

    @property
    def _finished(self) -> bool:
        return all(choice.ended is not None for choice in self._choices)

    def _count(self, delta: Delta) -> Choice:
        choice = self._choices[delta.index]
        self.num_answer_tokens += len(delta.token_ids)
        self._num_cached_tokens = max(self._num_cached_tokens, delta.num_cached_tokens)
        return choice

    def _chunk(
        self,
        index: int,
        delta: wire.ChoiceDelta,
        logprobs: list[wire.TokenLogprob] | None = None,
        *,
        finish_reason: wire.ChatFinishReason | None = None,
        report: bool = False,
    ) -> wire.ChatCompletionChunk:
        extras: dict[str, Any] = {"usage": None} if self._include_usage else {}
        if report:
            extras |= self._report
        return wire.ChatCompletionChunk(
            object="chat.completion.chunk",
            choices=[
                wire.ChunkChoice(
                    index=index,
                    delta=delta,
                    logprobs=self._wrapped(logprobs) if logprobs else None,
                    finish_reason=finish_reason,
                )
            ],
            **extras,
            **self._head,
        )

    def _wrapped(self, content: list[wire.TokenLogprob]) -> wire.Logprobs | None:
        return None if self._num_top is None else wire.Logprobs(content=content, refusal=None)

    def _logprobs(self, delta: Delta) -> list[wire.TokenLogprob]:
        positions = delta.logprobs or []
        if delta.finish_reason == "stop" and positions and positions[-1].sampled.token_id in self._end_token_ids:
            positions = positions[:-1]
        return [self._position(position) for position in positions]

    def _position(self, position: PositionLogprobs) -> wire.TokenLogprob:
        top = [self._token(token) for token in position.top[: self._num_top]]
        sampled = self._token(position.sampled)
        return wire.TokenLogprob(token=sampled.token, logprob=sampled.logprob, bytes=sampled.bytes, top_logprobs=top)

    def _token(self, token: TokenLogprob) -> wire.TopLogprob:
        data = self._tokenizer.token_bytes(token.token_id)
        # Written so that not-a-number, too, becomes the lowest.
        logprob = max(LOWEST_LOGPROB, token.logprob)
        return wire.TopLogprob(token=data.decode("utf-8", "replace"), logprob=logprob, bytes=list(data))
