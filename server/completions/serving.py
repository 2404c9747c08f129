"""The use case: plain prompts are continued, several at once, and come back as the older completions object.

Each prompt is an engine request of its own. Their deltas are renumbered to one row of choices, so that one `Answer`
(`answer.py`) counts and folds them all; its chat objects are rewritten here.
"""

import asyncio
import codecs
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec

from model_executor.engine import Delta, Prompt
from model_executor.processor.chatml import PLACEHOLDERS
from model_executor.processor.tokenizer import Tokenizer
from server.chat import response
from server.chat.serving import ServedModel
from server.completions.protocol import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from server.core.errors import BadRequestError
from server.core.metrics import Metrics
from server.generation.latency import timed
from server.generation.output import Answer
from server.generation.sampling_params import sampling_params
from server.tokenize.serving import require_known, text_ids

DEFAULT_MAX_TOKENS = 16
"""Longest answer where a request names none, as in the OpenAI API."""
PARALLEL_PROMPTS = 8
"""Prompts of one request that are in the engine at the same time."""


class Completions:
    """Continues prompts with one model.

    Args:
        model: what continues.
        metrics: where to measure.
    """

    def __init__(self, model: ServedModel, *, metrics: Metrics) -> None:
        self._model = model
        self._metrics = metrics

    async def complete(self, request: CompletionRequest, tenant: str) -> Completion:
        """The whole answer.

        Args:
            request: what was asked.
            tenant: whose caches may be used; the empty string where there is one tenant only.

        Raises:
            ApiError: the request cannot be served.
            EngineError: the engine refuses it, fails or is not there.
        """
        async with self._generation(request, tenant) as (answer, deltas):
            async for delta in deltas:
                answer.add(delta)
            whole = answer.completion()
        choices = [
            CompletionChoice(
                index=choice.index,
                text=choice.message.content or "",
                logprobs=self._positions(request).rewritten(choice.logprobs),
                finish_reason=_finish(choice.finish_reason),
            )
            for choice in whole.choices
        ]
        return _completion(whole, choices, usage=whole.usage)

    async def stream(self, request: CompletionRequest, tenant: str) -> AsyncGenerator[Completion, None]:
        """The answer as it grows; nothing is yielded before the engine's first delta.

        Args:
            request: as `complete`.
            tenant: as `complete`.

        Raises:
            ApiError: as `complete`.
            EngineError: as `complete`.
        """
        positions: dict[int, _Positions] = {}
        async with self._generation(request, tenant) as (answer, deltas):
            async for delta in deltas:
                for chunk in answer.chunks(delta):
                    choice = chunk.choices[0]
                    text = choice.delta.content or ""
                    if not text and choice.logprobs is None and choice.finish_reason is None:
                        continue  # the opening with the role, which this API does not have
                    known = positions.setdefault(choice.index, self._positions(request))
                    new = CompletionChoice(
                        index=choice.index,
                        text=text,
                        logprobs=known.rewritten(choice.logprobs),
                        finish_reason=_finish(choice.finish_reason),
                    )
                    yield _completion(chunk, [new], **({"usage": None} if request.include_usage else {}))
            if (last := answer.last_chunk()) is not None:
                yield _completion(last, [], usage=last.usage)

    @asynccontextmanager
    async def _generation(
        self, request: CompletionRequest, tenant: str
    ) -> AsyncIterator[tuple[Answer, AsyncIterator[Delta]]]:
        """The empty answer and the deltas to fill it; the engine is free again afterwards."""
        started_s = time.perf_counter()
        engine, tokenizer = self._model.engine, self._model.tokenizer
        with self._metrics.stage_s.labels("prompt").time():
            prompts = await asyncio.to_thread(self._prompts, request, tenant)
        limits = [
            sampling_params(
                request,
                num_prompt_tokens=len(prompt.token_ids),
                max_model_len=engine.max_model_len,
                default_max_tokens=DEFAULT_MAX_TOKENS,
                num_vocabulary_tokens=tokenizer.num_tokens,
                prompt_param=param,
            )
            for prompt, (param, _) in zip(prompts, request.prompts, strict=True)
        ]
        id_ = f"cmpl-{uuid.uuid4().hex}"
        answer = self._answer(id_, request, prompts)
        for prompt in prompts:
            self._metrics.prompt_tokens.observe(len(prompt.token_ids))
        streams = [
            engine.generate(f"{id_}-{number}", prompt, limit)
            for number, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
        ]
        async with (
            aclosing(_interleaved(streams, request.n)) as deltas,
            aclosing(timed(deltas, self._metrics, started_s)) as measured,
        ):
            yield answer, measured
        self._metrics.answer_tokens.observe(answer.num_answer_tokens)

    def _prompts(self, request: CompletionRequest, tenant: str) -> list[Prompt]:
        """Runs in a thread: long texts take a while."""
        adapter = self._model.adapter(request.model)
        return [Prompt(self._ids(source, param), [], tenant or None, adapter) for param, source in request.prompts]

    def _ids(self, source: str | list[int], param: str) -> list[int]:
        tokenizer = self._model.tokenizer
        if isinstance(source, str):
            ids = text_ids(source, tokenizer, max_model_len=self._model.engine.max_model_len, param=param)
            if not ids:
                raise BadRequestError(f"'{param}' is empty.", param=param, code="invalid_value")
            return ids
        require_known(source, tokenizer, param=param)
        for name in PLACEHOLDERS.values():
            if tokenizer.special_id(name) in source:
                raise BadRequestError(
                    f"'{param}' has the placeholder {name}, and media come with chat requests only.",
                    param=param,
                    code="invalid_value",
                )
        return source

    def _answer(self, id_: str, request: CompletionRequest, prompts: Sequence[Prompt]) -> Answer:
        return Answer(
            id_=id_,
            created=int(time.time()),
            model=request.model,
            num_choices=request.n * len(prompts),
            num_prompt_tokens=sum(len(prompt.token_ids) for prompt in prompts),
            num_image_tokens=0,
            num_video_tokens=0,
            num_top_logprobs=request.num_top_logprobs,
            include_usage=request.include_usage,
            report=None,
            tokenizer=self._model.tokenizer,
            end_token_ids=self._model.end_token_ids,
        )

    def _positions(self, request: CompletionRequest) -> "_Positions":
        return _Positions(self._model.tokenizer, skip_special_tokens=request.skip_special_tokens)


class _Positions:
    """One choice's log-probabilities in the older form, which tells where in the text each token begins."""

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_chars = 0

    def rewritten(self, logprobs: response.Logprobs | None) -> CompletionLogprobs | None:
        """The same, going on where the last call ended."""
        if logprobs is None:
            return None
        content = logprobs.content
        return CompletionLogprobs(
            tokens=[_name(position) for position in content],
            token_logprobs=[position.logprob for position in content],
            top_logprobs=[
                {_name(token): token.logprob for token in (*position.top_logprobs, position)} for position in content
            ],
            text_offset=[self._advance(position) for position in content],
        )

    def _advance(self, position: response.TokenLogprob) -> int:
        """Where the token begins."""
        offset = self._num_chars
        if not self._is_left_out(position.token):
            self._num_chars += len(self._decoder.decode(bytes(position.bytes)))
        return offset

    def _is_left_out(self, token: str) -> bool:
        id_ = self._tokenizer.special_id(token)
        return id_ is not None and self._skip_special_tokens and not self._tokenizer.decode([id_])


def _name(token: response.TopLogprob) -> str:
    """The token's text, or its bytes where they are no text by themselves."""
    data = bytes(token.bytes)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _finish(reason: response.ChatFinishReason | None) -> response.FinishReason | None:
    assert reason != "tool_calls"  # no functions here
    return reason


def _completion(
    source: response.ChatCompletion | response.ChatCompletionChunk,
    choices: list[CompletionChoice],
    **usage: Any,
) -> Completion:
    return Completion(
        id=source.id, object="text_completion", created=source.created, model=source.model, choices=choices, **usage
    )


async def _interleaved(streams: Sequence[AsyncGenerator[Delta, None]], n: int) -> AsyncGenerator[Delta, None]:
    """The deltas of all streams as they come, as those of one request with `n` choices per stream."""
    queue: asyncio.Queue[tuple[int, Delta] | Exception | None] = asyncio.Queue(maxsize=1)
    places = asyncio.Semaphore(PARALLEL_PROMPTS)

    async def pump(number: int, stream: AsyncGenerator[Delta, None]) -> None:
        async with places, aclosing(stream):
            try:
                async for delta in stream:
                    await queue.put((number, delta))
            except Exception as error:
                await queue.put(error)
            else:
                await queue.put(None)

    tasks = [asyncio.create_task(pump(number, stream)) for number, stream in enumerate(streams)]
    num_cached_tokens = [0] * len(streams)
    num_running = len(streams)
    try:
        while num_running:
            match await queue.get():
                case None:
                    num_running -= 1
                case Exception() as error:
                    raise error
                case number, delta:
                    num_cached_tokens[number] = max(num_cached_tokens[number], delta.num_cached_tokens)
                    yield msgspec.structs.replace(
                        delta, index=number * n + delta.index, num_cached_tokens=sum(num_cached_tokens)
                    )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
