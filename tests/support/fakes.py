"""Stand-ins for what lies beyond the HTTP side: an engine that follows a script, media made of nothing."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from model_executor.engine import (
    Delta,
    EngineState,
    EngineStats,
    EngineUnavailableError,
    FinishReason,
    Prompt,
    SamplingParams,
)
from model_executor.processor.geometry import Grid, Size
from model_executor.processor.tokenizer import Tokenizer
from server.core.metrics import MediaLoad
from server.generation.model_service import ServedModel
from server.media.progress import FrameCount, Progress
from server.media.types import MediaPart, PreparedMedia

MODEL = "tessera-test"

Step = Delta | Exception | float | asyncio.Event
"""What a script does next: add something, fail, sleep so many seconds, wait."""
Script = Callable[[Prompt, SamplingParams], Iterable[Step]]


def say(*texts: str, index: int = 0, finish: FinishReason = "stop") -> list[Delta]:
    """One delta per text, one token each, the last one finishing the choice."""
    last = len(texts) - 1
    return [
        Delta(index=index, text=text, token_ids=[100 + i], finish_reason=finish if i == last else None)
        for i, text in enumerate(texts)
    ]


def hello(_: Prompt, limits: SamplingParams) -> list[Step]:
    """`Hello, world!` in three deltas, for every choice in turn."""
    choices = [say("Hello", ", world", "!", index=index) for index in range(limits.n)]
    return [delta for step in zip(*choices, strict=True) for delta in step]


@dataclass
class FakeEngine:
    """An engine that follows a script and remembers what it was asked."""

    script: Script = hello
    max_model_len: int = 4096
    state: EngineState = EngineState.READY
    failure: str | None = None
    readings: EngineStats = EngineStats()
    prompts: list[Prompt] = field(default_factory=list)
    limits: list[SamplingParams] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    aborted: list[str] = field(default_factory=list)
    """Requests whose generator was closed before its end."""

    async def generate(self, request_id: str, prompt: Prompt, limits: SamplingParams) -> AsyncGenerator[Delta, None]:
        if self.state is not EngineState.READY:
            raise EngineUnavailableError("the engine is away", self.state)
        assert request_id not in self.running
        self.prompts.append(prompt)
        self.limits.append(limits)
        self.running.add(request_id)
        ended = False
        try:
            for step in self.script(prompt, limits):
                match step:
                    case Delta():
                        await asyncio.sleep(0)
                        yield step
                    case Exception():
                        ended = True
                        raise step
                    case asyncio.Event():
                        await step.wait()
                    case delay_s:
                        await asyncio.sleep(delay_s)
            ended = True
        finally:
            self.running.remove(request_id)
            if not ended:
                self.aborted.append(request_id)

    async def stats(self) -> EngineStats:
        if self.state is not EngineState.READY:
            raise EngineUnavailableError("the engine is away", self.state)
        return self.readings


@dataclass
class FakeMedia:
    """Media without bytes: pictures of 2x2 tokens, clips of 3 slices of one token."""

    failure: Exception | None = None
    delay_s: float = 0
    parts: list[MediaPart] = field(default_factory=list)
    tenants: list[str] = field(default_factory=list)
    forgotten: list[Path] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    """Paths not released yet."""
    frames: FrameCount = field(default_factory=FrameCount)
    """How far the first part is while it is being prepared."""
    load: MediaLoad = MediaLoad(num_waiting=0, num_running=0, num_restarts=0, shared_bytes=0)

    async def prepare(
        self, parts: Sequence[MediaPart], tenant: str, progress: Progress | None = None
    ) -> list[PreparedMedia]:
        self.parts += parts
        self.tenants.append(tenant)
        if progress is not None:
            progress.begin(len(parts))
            progress.follow(0, self.frames)
        await asyncio.sleep(self.delay_s)
        if progress is not None:
            progress.end()
        if self.failure is not None:
            raise self.failure
        return [self._prepared(part, f"/nowhere/{number}") for number, part in enumerate(parts)]

    def forget_file(self, file: Path) -> None:
        self.forgotten.append(file)

    def _prepared(self, part: MediaPart, path: str) -> PreparedMedia:
        self.held.add(path)
        image = part.modality == "image"
        return PreparedMedia(
            modality=part.modality,
            grid=Grid(1, 4, 4) if image else Grid(3, 2, 2),
            digest="0" * 64,
            path=path,
            source_size=Size(480, 640),
            size=Size(56, 56) if image else Size(28, 28),
            release=lambda: self.held.discard(path),
            frame_times_s=() if image else (0.0, 0.5, 1.0, 1.5, 2.0, 2.5),
            effective_fps=None if image else 2.0,
            notes=() if image else ("a note",),
        )


def opener(
    engine: FakeEngine, media: FakeMedia, tokenizer: Tokenizer, adapters: tuple[str, ...] = ()
) -> Callable[[], AbstractAsyncContextManager[ServedModel]]:
    """What `create_app` opens: the fakes and a real tokenizer, at once."""

    @asynccontextmanager
    async def open_model() -> AsyncIterator[ServedModel]:
        end = tokenizer.special_id("<|im_end|>")
        assert end is not None
        created = 1_700_000_000
        yield ServedModel(MODEL, created, engine, media, tokenizer, None, end_token_ids=(end,), adapters=adapters)

    return open_model
