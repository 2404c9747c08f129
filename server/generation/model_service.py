"""The model behind the routes: being opened, open, lost, or failed.

The HTTP side listens before the model is there. What opens it is handed in as a function, so that tests open fakes and
`server/__main__.py` opens a checkpoint, an engine process and media workers (`server/model_loading.py`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from model_executor.checkpoint.errors import CheckpointError
from model_executor.engine import EngineState, EngineStats, EngineUnavailableError
from server.auth.rate_limits import KeyUsage
from server.auth.usage import MeteredEngine
from server.chat.serving import Chat, ServedModel
from server.completions.serving import Completions
from server.core.errors import NotFoundError, UnavailableError
from server.core.metrics import Metrics
from server.core.settings import Settings

OpenModel = Callable[[], AbstractAsyncContextManager[ServedModel]]
"""Brings the model up and, on leaving, takes it down; may take minutes, and need not wait until the engine is ready."""

_log = logging.getLogger(__name__)

LOADING_RETRY_S = 5
STATS_TIMEOUT_S = 1.0
"""How long a scrape waits for the engine's part of the measurements, and goes without."""
RESTARTING_RETRY_S = 2


class Service:
    """The one model of the server.

    Args:
        settings: of the server.
        open_model: see `OpenModel`.
        metrics: where to measure.
    """

    def __init__(self, settings: Settings, open_model: OpenModel, metrics: Metrics) -> None:
        """See the class."""
        self.model_name = settings.model_name
        self.metrics = metrics
        self.keep_alive_s = settings.keep_alive_s
        self._default_max_tokens = settings.default_max_tokens
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

    def chat(self, account: KeyUsage | None) -> Chat:
        """The chat use case over the open model.

        Args:
            account: what the engine computes is charged to it; None where no key is needed.

        Raises:
            UnavailableError: the model is not ready.
        """
        return Chat(self._metered_model(account), default_max_tokens=self._default_max_tokens, metrics=self.metrics)

    def completions(self, account: KeyUsage | None) -> Completions:
        """The completions use case over the open model.

        Args:
            account: as `chat`.

        Raises:
            UnavailableError: the model is not ready.
        """
        return Completions(self._metered_model(account), metrics=self.metrics)

    def _metered_model(self, account: KeyUsage | None) -> ServedModel:
        model = self.model()
        return model if account is None else replace(model, engine=MeteredEngine(model.engine, account))

    async def measurements(self) -> bytes:
        """Everything that is measured, with fresh readings of what can be asked, in Prometheus' text format."""
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

    def require_model(self, name: str) -> None:
        """Check that a request names the served model or one of its adapters.

        Raises:
            NotFoundError: it names another one.
        """
        names = (self.model_name, *(() if self._model is None else self._model.adapters))
        if name not in names:
            raise NotFoundError(
                f"The model {name[:100]!r} does not exist; this server has {', '.join(map(repr, names))}.",
                param="model",
                code="model_not_found",
            )
