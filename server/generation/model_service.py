"""The served model and its life: being opened, open, lost, or failed.

The HTTP side listens before the model is there. What opens it is handed in as a function, so that tests open fakes and
`server/serve.py` opens a checkpoint, an engine process and media workers (`server/model_loading.py`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from model_executor.checkpoint.errors import CheckpointError
from model_executor.engine import Engine, EngineState, EngineStats, EngineUnavailableError
from model_executor.families.family import Family
from model_executor.families.qwen2_vl import QWEN2_VL
from model_executor.processor.chatml import QWEN2_FORMAT, PromptFormat
from model_executor.processor.tokenizer import Tokenizer
from server.core.errors import NotFoundError, UnavailableError
from server.core.metrics import MediaLoad, Metrics
from server.media.progress import Progress
from server.media.types import MediaPart, PreparedMedia
from server.prompt.builder import PromptBuilder
from server.prompt.conversation import Conversation
from server.prompt.video_frames import with_frames


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
            progress: kept up to date in the meantime.

        Raises:
            ApiError: an image or video cannot be used, or cannot be prepared now.
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
    sampling_defaults: Mapping[str, float] = field(default_factory=dict)
    """How to sample where a request does not say, by its fields' names."""
    description: str | None = None
    """What the model can do, in a sentence for people, if known."""
    tool_template: str | None = None
    """The checkpoint's Jinja template for conversations with tools, where it has another one for these."""
    family: Family = QWEN2_VL
    """The family it belongs to."""
    prompt_format: PromptFormat = QWEN2_FORMAT
    """How its prompts are written."""

    @property
    def prompt_builder(self) -> PromptBuilder:
        """Builds its prompts."""
        return PromptBuilder(
            self.tokenizer,
            self.chat_template,
            self.engine.max_model_len,
            self.prompt_format,
            tool_template=self.tool_template,
        )

    @asynccontextmanager
    async def prepared(
        self, conversation: Conversation, tenant: str, progress: Progress | None = None
    ) -> AsyncIterator[tuple[Conversation, Sequence[PreparedMedia]]]:
        """A conversation as the model sees it, and its media, which are released on exit.

        Args:
            conversation: what the client sent; its videos become images where the model sees images only.
            tenant: whose caches may be used.
            progress: how far the media are, kept up to date in the meantime.

        Raises:
            ApiError: an image or video cannot be used, or cannot be prepared now.
        """
        conversation = with_frames(conversation, self.family.frames_as_images)
        media = await self.media.prepare(conversation.media, tenant, progress) if conversation.media else []
        try:
            yield conversation, media
        finally:
            for item in media:
                item.release()

    def adapter(self, name: str) -> str | None:
        """The adapter a request for the model `name` computes with; None for the model itself."""
        return None if name == self.name else name

    def require(self, name: str) -> None:
        """Check that a request names the model or one of its adapters.

        Raises:
            NotFoundError: it names another one.
        """
        names = (self.name, *self.adapters)
        if name not in names:
            raise NotFoundError(
                f"The model {name[:100]!r} does not exist. Available models: {', '.join(map(repr, names))}.",
                param="model",
                code="model_not_found",
            )


OpenModel = Callable[[], AbstractAsyncContextManager[ServedModel]]
"""Brings the model up and, on leaving, takes it down; may take minutes, and need not wait until the engine is ready."""

_log = logging.getLogger(__name__)

LOADING_RETRY_S = 5
STATS_TIMEOUT_S = 1.0
"""How long a scrape waits for the engine's part of the measurements, and goes without."""
RESTARTING_RETRY_S = 2


class ModelService:
    """The one model of the server.

    Args:
        model_name: what clients call the model.
        open_model: see `OpenModel`.
        metrics: where to measure.
    """

    def __init__(self, model_name: str, open_model: OpenModel, metrics: Metrics) -> None:
        self.model_name = model_name
        self.metrics = metrics
        self._open_model = open_model
        self._model: ServedModel | None = None
        self._opening_error: Exception | None = None

    @property
    def state(self) -> EngineState:
        """Where the model is in its life."""
        if self._opening_error is not None:
            return EngineState.FAILED
        return EngineState.LOADING if self._model is None else self._model.engine.state

    @property
    def failure(self) -> str | None:
        """Why the state is FAILED; None in any other."""
        if self._opening_error is not None:
            return str(self._opening_error)
        return None if self._model is None else self._model.engine.failure

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the model in the background; take it down on leaving."""
        closing = asyncio.Event()
        holder = asyncio.create_task(self._hold(closing))
        try:
            yield
        finally:
            closing.set()
            if self._model is None:
                holder.cancel()
            await asyncio.wait({holder})
        if not holder.cancelled():
            holder.result()

    async def _hold(self, closing: asyncio.Event) -> None:
        try:
            async with self._open_model() as model:
                self._model = model
                await closing.wait()
        except CheckpointError as error:
            # Kept for the process to report and exit on; requests are answered 503 until then.
            self._opening_error = error
        except Exception as error:
            _log.exception("the model could not be opened")
            self._opening_error = error
        finally:
            self._model = None

    def model(self) -> ServedModel:
        """The open model.

        Raises:
            UnavailableError: it is not ready.
        """
        model = self.opened_model()
        if self.state is not EngineState.READY:
            raise self._not_ready()
        return model

    def opened_model(self) -> ServedModel:
        """The open model, whether its engine answers at the moment or not.

        Raises:
            UnavailableError: it is not open yet.
        """
        if self._model is None:
            raise self._not_ready()
        return self._model

    def _not_ready(self) -> UnavailableError:
        state = self.state
        retry_after_s = RESTARTING_RETRY_S if state is EngineState.RESTARTING else LOADING_RETRY_S
        return UnavailableError(f"The model is not ready: {state.value}.", retry_after_s=retry_after_s)

    async def measurements(self) -> bytes:
        """Everything that is measured, with fresh readings of engine and media, in Prometheus' text format."""
        model = self._model
        if model is None:
            return self.metrics.render(self.state, None, None)
        stats: EngineStats | None
        try:
            async with asyncio.timeout(STATS_TIMEOUT_S):
                stats = await model.engine.stats()
        except (EngineUnavailableError, TimeoutError):
            stats = None
        return self.metrics.render(self.state, stats, model.media.load)

    def forget_file(self, file: Path) -> None:
        """Give up what was prepared from an uploaded file that is deleted."""
        if self._model is not None:
            self._model.media.forget_file(file)
