"""The use case: a chat request becomes a prompt and media, goes to the engine, and comes back as an answer.

1. Messages become turns and media (`conversation.py`).
2. Media are fetched, decoded and sized (`media/`).
3. Turns are rendered and encoded, placeholders spliced in and checked (`prompt.py`).
4. The context and the sampling limits are checked (`sampling.py`).
5. The engine generates; each delta is folded or becomes chunks (`answer.py`).
6. Whatever happens, the engine's iterator is closed and the media are released.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model_executor.engine import Delta, Engine, Prompt
from model_executor.processor.tokenizer import Tokenizer
from server.chat.request import ChatCompletionRequest
from server.chat.response import ChatCompletion, ChatCompletionChunk, Report
from server.core.metrics import MediaLoad, Metrics
from server.generation.grammar import grammar_of
from server.generation.latency import timed
from server.generation.output import Answer
from server.generation.sampling_params import sampling_params
from server.media.progress import Progress
from server.media.types import MediaPart, PreparedMedia
from server.prompt.builder import build_prompt
from server.prompt.conversation import Conversation, read_conversation
from server.prompt.media_report import media_report
from server.tools.grammar import described


class MediaPreparer(Protocol):
    """Brings and decodes media."""

    @property
    def load(self) -> MediaLoad:
        """How busy it is."""

    def forget_file(self, file: Path) -> None:
        """Give up what was prepared from an uploaded file that is deleted."""

    async def prepare(
        self, parts: Sequence[MediaPart], tenant: str, progress: Progress | None = None
    ) -> list[PreparedMedia]:
        """Prepare all media of a request, in order; none is left held when it raises.

        Args:
            parts: what to prepare.
            tenant: whose request it is.
            progress: kept up to date meanwhile.

        Raises:
            ApiError: a medium cannot be used, or cannot be prepared now.
        """


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Everything a request needs of the model."""

    name: str
    """What clients call it."""
    created: int
    """When it was opened, in seconds since 1970."""
    engine: Engine
    media: MediaPreparer
    tokenizer: Tokenizer
    chat_template: str | None
    """The checkpoint's Jinja template, or None for ChatML."""
    end_token_ids: tuple[int, ...]
    """Ids after which an answer is over."""
    adapters: tuple[str, ...] = ()
    """Names of the LoRA adapters that are served as further models."""

    def adapter(self, name: str) -> str | None:
        """The adapter a request for the model `name` computes with; None for the model itself."""
        return None if name == self.name else name


class Chat:
    """Answers chat requests with one model.

    Args:
        model: what answers.
        default_max_tokens: longest answer where a request names none; None for what the context leaves.
        metrics: where to measure.
    """

    def __init__(self, model: ServedModel, *, default_max_tokens: int | None, metrics: Metrics) -> None:
        """See the class."""
        self._model = model
        self._default_max_tokens = default_max_tokens
        self._metrics = metrics

    async def complete(self, request: ChatCompletionRequest, tenant: str) -> ChatCompletion:
        """The whole answer.

        Args:
            request: what was asked.
            tenant: whose caches may be used; the empty string where there is one tenant only.

        Raises:
            ApiError: the request, or one of its media, cannot be served.
            EngineError: the engine refuses it, fails or is not there.
        """
        async with self._generation(request, tenant) as (answer, deltas):
            async for delta in deltas:
                answer.add(delta)
            return answer.completion()

    async def stream(
        self, request: ChatCompletionRequest, tenant: str, progress: Progress | None = None
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """The answer as it grows; nothing is yielded before the engine's first delta.

        Args:
            request: as `complete`.
            tenant: as `complete`.
            progress: how far the media are, kept up to date meanwhile.

        Raises:
            ApiError: as `complete`.
            EngineError: as `complete`.
        """
        async with self._generation(request, tenant, progress) as (answer, deltas):
            async for delta in deltas:
                for chunk in answer.chunks(delta):
                    yield chunk
            if (last := answer.last_chunk()) is not None:
                yield last

    @asynccontextmanager
    async def _generation(
        self, request: ChatCompletionRequest, tenant: str, progress: Progress | None = None
    ) -> AsyncIterator[tuple[Answer, AsyncIterator[Delta]]]:
        """The empty answer and the deltas to fill it; engine and media are free again afterwards."""
        started_s = time.perf_counter()
        engine = self._model.engine
        conversation = read_conversation(request.messages)
        grammar = grammar_of(request)
        media = await self._prepare(conversation, tenant, progress)
        try:
            with self._metrics.stage_s.labels("prompt").time():
                prompt = await asyncio.to_thread(self._prompt, request, conversation, media, tenant)
            limits = sampling_params(
                request,
                num_prompt_tokens=len(prompt.token_ids),
                max_model_len=engine.max_model_len,
                default_max_tokens=self._default_max_tokens,
                num_vocabulary_tokens=self._model.tokenizer.num_tokens,
                grammar=grammar,
            )
            report = media_report(conversation.media, media) if "media" in request.include else None
            id_ = f"chatcmpl-{uuid.uuid4().hex}"
            answer = self._answer(id_, request, prompt, report)
            self._metrics.prompt_tokens.observe(len(prompt.token_ids))
            async with (
                aclosing(engine.generate(id_, prompt, limits)) as deltas,
                aclosing(timed(deltas, self._metrics, started_s)) as measured,
            ):
                yield answer, measured
            self._metrics.answer_tokens.observe(answer.num_answer_tokens)
        finally:
            for medium in media:
                medium.release()

    def _prompt(
        self,
        request: ChatCompletionRequest,
        conversation: Conversation,
        media: Sequence[PreparedMedia],
        tenant: str,
    ) -> Prompt:
        """Runs in a thread: long texts take a while."""
        return build_prompt(
            conversation.turns,
            media,
            self._model.tokenizer,
            template=self._model.chat_template,
            tools=described(request),
            add_generation_prompt=request.opens_turn,
            continue_final_message=request.continue_final_message,
            add_vision_id=request.add_vision_id,
            max_model_len=self._model.engine.max_model_len,
            cache_salt=tenant or None,
            adapter=self._model.adapter(request.model),
        )

    def _answer(self, id_: str, request: ChatCompletionRequest, prompt: Prompt, report: Report | None) -> Answer:
        return Answer(
            id_=id_,
            created=int(time.time()),
            model=request.model,
            num_choices=request.n,
            num_prompt_tokens=len(prompt.token_ids),
            num_image_tokens=sum(item.num_tokens for item in prompt.media if item.modality == "image"),
            num_video_tokens=sum(item.num_tokens for item in prompt.media if item.modality == "video"),
            num_top_logprobs=request.num_top_logprobs,
            may_call=request.may_call,
            include_usage=request.include_usage,
            report=report,
            tokenizer=self._model.tokenizer,
            end_token_ids=self._model.end_token_ids,
        )

    async def _prepare(self, conversation: Conversation, tenant: str, progress: Progress | None) -> list[PreparedMedia]:
        if not conversation.media:
            return []
        with self._metrics.stage_s.labels("media").time():
            media = await self._model.media.prepare(conversation.media, tenant, progress)
        for medium in media:
            self._metrics.media_tokens.labels(medium.modality).inc(medium.grid.num_tokens)
        return media
