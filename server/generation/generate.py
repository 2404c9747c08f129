"""From a request to the events of its answer: media, prompt, engine, output; the one way to the model for every API.

1. Media are fetched, decoded and sized (`server/media/`).
2. The prompt is rendered and encoded, placeholders spliced in and checked (`server/prompt/builder.py`).
3. The context's length and the sampling parameters are checked (`sampling_params.py`).
4. The engine generates; observers measure its deltas and charge for them (`latency.py`, `server/auth/usage.py`).
5. The deltas are read as events (`output.py`), which the APIs encode.
6. Whatever happens, the engine's iterator is closed and the media are released.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace

from model_executor.engine import Delta, Engine, EngineState, EngineUnavailableError, Prompt, SamplingParams
from model_executor.families.family import BoxUnit
from server.auth.rate_limits import KeyUsage
from server.auth.usage import UsageObserver
from server.core.metrics import Metrics
from server.generation.latency import LatencyObserver
from server.generation.model_service import ServedModel
from server.generation.output import OutputReader
from server.generation.output_events import GenerationEnd, GenerationStart, OutputEvent, UsageSoFar
from server.generation.request import GenerationRequest
from server.generation.sampling_params import sampling_params
from server.media.progress import Progress
from server.media.types import PreparedMedia
from server.prompt.conversation import Conversation
from server.prompt.media_report import MediaReport, media_report

_MAX_PATH_CHARS = 200
PARALLEL_PROMPTS = 8
"""Prompts of one request that are in the engine at the same time."""


@dataclass(frozen=True, slots=True)
class Generator:
    """Generates for one client."""

    model: ServedModel
    metrics: Metrics
    key: KeyUsage | None
    """What the engine computes is charged to it; None where no key is needed."""

    def left_out(self, request: GenerationRequest) -> list[str]:
        """Paths of what the client sent and nothing uses: reported in the response."""
        prompt = request.prompt
        unread = self.model.prompt_builder.unread_options(prompt) if isinstance(prompt, Conversation) else []
        return [*request.relaxed, *(f"chat_template_kwargs.{name}"[:_MAX_PATH_CHARS] for name in unread)]

    async def run(self, request: GenerationRequest, handle: Callable[[OutputEvent], object]) -> None:
        """Generate to the end, once more if an engine is lost on the way and another one is there.

        Args:
            request: what to generate.
            handle: gets each event, when all have come.

        Raises:
            ApiError: as `generate`.
            EngineError: as `generate`.
        """
        try:
            events = await self._all_events(request)
        except EngineUnavailableError:
            if self.model.engine.state is not EngineState.READY:
                raise
            events = await self._all_events(request)
        for event in events:
            handle(event)

    async def _all_events(self, request: GenerationRequest) -> list[OutputEvent]:
        async with aclosing(self.generate(request)) as events:
            return [event async for event in events]

    async def generate(
        self, request: GenerationRequest, progress: Progress | None = None
    ) -> AsyncGenerator[OutputEvent, None]:
        """The answer as it grows; nothing is yielded before the engine's first delta.

        Args:
            request: what to generate.
            progress: how far the media are, kept up to date in the meantime.

        Raises:
            ApiError: the request, or one of its media, cannot be served.
            EngineError: the engine refuses it, fails or is not there.
        """
        started_s = time.perf_counter()
        async with self._prepared(request, progress) as (request, media):
            with self.metrics.stage_s.labels("prompt").time():
                prompts = await asyncio.to_thread(_build_prompts, self.model, request, media)
            params = self._params(request, prompts)
            for prompt in prompts:
                self.metrics.prompt_tokens.observe(len(prompt.token_ids))
            reader = self._reader(request, prompts)
            latency = LatencyObserver(self.metrics, started_s)
            charged = UsageObserver(self.key, prompts)
            started = False
            async with aclosing(_deltas(self.model.engine, request.id, prompts, params)) as deltas:
                async for number, delta in deltas:
                    latency.observe(number, delta)
                    charged.observe(number, delta)
                    events = reader.read(number, delta)
                    if not started:
                        started = True
                        yield GenerationStart(reader.usage(), _report(request, media, self.model.family.box_unit))
                    if request.continuous_usage:
                        yield UsageSoFar(reader.usage())
                    for event in events:
                        yield event
            latency.end()
            reader.require_finished()
            usage = reader.usage()
            self.metrics.answer_tokens.observe(usage.output_tokens)
            yield GenerationEnd(usage)

    @asynccontextmanager
    async def _prepared(
        self, request: GenerationRequest, progress: Progress | None
    ) -> AsyncIterator[tuple[GenerationRequest, Sequence[PreparedMedia]]]:
        """The request as the model sees it, and its media."""
        if not isinstance(request.prompt, Conversation) or not request.prompt.media:
            yield request, []
            return
        async with AsyncExitStack() as stack:
            with self.metrics.stage_s.labels("media").time():
                preparing = self.model.prepared(request.prompt, request.tenant, progress)
                conversation, media = await stack.enter_async_context(preparing)
            for item in media:
                self.metrics.media_tokens.labels(item.modality).inc(item.grid.num_tokens)
            yield replace(request, prompt=conversation), media

    def _params(self, request: GenerationRequest, prompts: Sequence[Prompt]) -> list[SamplingParams]:
        if isinstance(request.prompt, Conversation):
            params = [request.prompt.param]
        else:
            params = [prompt.param for prompt in request.prompt]
        return [
            sampling_params(
                request,
                num_prompt_tokens=len(prompt.token_ids),
                param=param,
                max_model_len=self.model.engine.max_model_len,
                num_vocabulary_tokens=self.model.tokenizer.num_tokens,
                defaults=self.model.sampling_defaults,
            )
            for prompt, param in zip(prompts, params, strict=True)
        ]

    def _reader(self, request: GenerationRequest, prompts: Sequence[Prompt]) -> OutputReader:
        return OutputReader(
            prompts,
            num_outputs=request.sampling.n,
            may_call=request.may_call,
            num_top_logprobs=request.num_top_logprobs,
            tokenizer=self.model.tokenizer,
            end_token_ids=self.model.end_token_ids,
            echoes=self._echoes(request, prompts) if request.echoes else None,
        )

    def _echoes(self, request: GenerationRequest, prompts: Sequence[Prompt]) -> list[str]:
        """The text of each prompt: the client's own, or that of its token ids."""
        sources = [] if isinstance(request.prompt, Conversation) else [prompt.source for prompt in request.prompt]
        return [
            source
            if isinstance(source, str)
            else self.model.tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
            for source, prompt in zip(sources, prompts, strict=True)
        ]


def _build_prompts(model: ServedModel, request: GenerationRequest, media: Sequence[PreparedMedia]) -> list[Prompt]:
    """Runs in a thread: long texts take a while."""
    builder = replace(model.prompt_builder, num_answer_tokens=request.max_output_tokens)
    cache_salt, adapter = request.tenant or None, model.adapter(request.model)
    if isinstance(request.prompt, Conversation):
        return [builder.chat(request.prompt, media, cache_salt=cache_salt, adapter=adapter)]
    return [builder.plain(prompt, cache_salt=cache_salt, adapter=adapter) for prompt in request.prompt]


def _report(request: GenerationRequest, media: Sequence[PreparedMedia], box_unit: BoxUnit) -> tuple[MediaReport, ...]:
    return media_report(request.prompt.media, media, box_unit) if isinstance(request.prompt, Conversation) else ()


async def _deltas(
    engine: Engine, id_: str, prompts: Sequence[Prompt], params: Sequence[SamplingParams]
) -> AsyncGenerator[tuple[int, Delta], None]:
    """The deltas of all prompts as they come, each with its prompt's number."""
    if len(prompts) == 1:
        async with aclosing(engine.generate(id_, prompts[0], params[0])) as stream:
            async for delta in stream:
                yield 0, delta
        return
    queue: asyncio.Queue[tuple[int, Delta] | Exception | None] = asyncio.Queue(maxsize=1)
    places = asyncio.Semaphore(PARALLEL_PROMPTS)

    async def pump(number: int) -> None:
        async with places, aclosing(engine.generate(f"{id_}-{number}", prompts[number], params[number])) as stream:
            try:
                async for delta in stream:
                    await queue.put((number, delta))
            except Exception as error:
                await queue.put(error)
            else:
                await queue.put(None)

    tasks = [asyncio.create_task(pump(number)) for number in range(len(prompts))]
    num_running = len(prompts)
    try:
        while num_running:
            match await queue.get():
                case None:
                    num_running -= 1
                case Exception() as error:
                    raise error
                case numbered:
                    yield numbered
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
