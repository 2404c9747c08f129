"""Creates the application: features' routes, and the middleware every request passes.

From the outside in: access log (id, log, metrics), HEAD as GET, CORS where configured, errors (become bodies), auth,
limits of the key, body limit, disconnect, routes.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from server.api.request_body import large_body_queue
from server.auth.api_keys import KeyRing
from server.auth.rate_limits import LocalCounts
from server.auth.shared_limits import SharedLimits
from server.chat import preview_router
from server.chat import router as chat
from server.completions import router as completions
from server.core.concurrency import forever, watch_loop
from server.core.errors import NotFoundError
from server.core.metrics import Metrics
from server.core.settings import Settings, split_list
from server.core.shared_state import SharedState, SharedStateError
from server.files import router as files
from server.files.interface import Files
from server.files.shared.store import SharedFileStore
from server.files.store import FileStore
from server.generation.model_service import ModelService, OpenModel
from server.messages import errors as messages_errors
from server.messages import router as messages
from server.middleware.access_log import AccessLogMiddleware
from server.middleware.authentication import AuthenticationMiddleware
from server.middleware.body_limit import BodyLimitMiddleware
from server.middleware.cors import CorsMiddleware
from server.middleware.disconnect import DisconnectMiddleware
from server.middleware.errors import ErrorMiddleware, translate_http_exception
from server.middleware.head import HeadMiddleware
from server.middleware.rate_limit import RateLimitMiddleware
from server.ops import health, metrics, models, openapi, playground
from server.ops.playground_files import PageFile, read_page
from server.prompt.messages import StoredFile
from server.responses import router as responses
from server.responses.memory import conversation_router as conversations
from server.responses.memory import router as kept_responses
from server.responses.memory.shared import SharedMemory
from server.responses.memory.store import ProcessMemory
from server.tokenize import router as tokenize

_log = logging.getLogger("tessera.app")

OPEN_PATHS = ("/health",)
"""Paths that need no key, in addition to those of the page."""


_FEATURES = (
    chat,
    preview_router,
    responses,
    kept_responses,
    conversations,
    messages,
    files,
    completions,
    tokenize,
    models,
    health,
    metrics,
    openapi,
    playground,
)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What lives as long as the application."""

    settings: Settings
    clock: Callable[[], float]
    measurements: Metrics
    keys: KeyRing
    service: ModelService
    state: SharedState | None
    limits: SharedLimits | None
    store: Files
    page: Mapping[str, PageFile]


def create_app(settings: Settings, open_model: OpenModel, *, clock: Callable[[], float] = time.monotonic) -> FastAPI:
    """The ASGI application; its lifespan opens and closes the model.

    Args:
        settings: of the server.
        open_model: brings up what answers requests.
        clock: in seconds; keys and their limits go by it.

    Raises:
        KeyFileError: the key file cannot be used.
        SharedStateError: what several servers share cannot be used as the settings say.
    """
    parts = _parts(settings, open_model, clock)
    app = FastAPI(
        title="Tessera",
        version=version("tessera-serve"),
        description="Qwen-VL, Qwen2-VL and Qwen2.5-VL behind the OpenAI API: text, images and video.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lambda _: _lifespan(parts),
        middleware=_middleware(parts),
        exception_handlers={HTTPException: translate_http_exception},
    )
    _set_state(app, parts)
    for feature in _FEATURES:
        app.include_router(feature.router)
    return app


def _parts(settings: Settings, open_model: OpenModel, clock: Callable[[], float]) -> _Parts:
    measurements = Metrics(shows_keys=settings.metrics_key is not None)
    fixed_keys = split_list(settings.api_key.get_secret_value() if settings.api_key else None)
    keys = KeyRing(fixed_keys, settings.api_keys_file, clock=clock)
    service = ModelService(settings.model_name, open_model, measurements)
    state = None if settings.state_url is None else SharedState(settings.state_url)
    limits = None if state is None else SharedLimits(state, fail_open=settings.state_fail_open)
    store = _file_store(settings, state)
    store.on_delete(service.forget_file)
    measurements.add_files(store)
    if settings.server_name is not None:
        measurements.add_server(settings.server_name)
    return _Parts(settings, clock, measurements, keys, service, state, limits, store, read_page())


@asynccontextmanager
async def _lifespan(parts: _Parts) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        if parts.state is not None and parts.limits is not None:
            stack.push_async_callback(parts.state.close)
            await stack.enter_async_context(parts.limits.running())
        await stack.enter_async_context(parts.store.running())
        await stack.enter_async_context(parts.service.running())
        if isinstance(parts.store, FileStore):
            _warn_of_orphans(parts.store, parts.keys)
        observe = parts.measurements.loop_lag_s.observe
        watching = asyncio.create_task(forever(lambda: watch_loop(observe), "the watch over the event loop"))
        try:
            yield
        finally:
            watching.cancel()


def _set_state(app: FastAPI, parts: _Parts) -> None:
    """What routes read from the application."""
    settings, store = parts.settings, parts.store
    app.state.settings = settings
    app.state.service = parts.service
    app.state.files = store
    app.state.find_file = partial(_find_file, store) if isinstance(store, FileStore) else partial(_wait_for_file, store)
    app.state.finding_blocks = not isinstance(store, FileStore)
    app.state.memory = (
        ProcessMemory(settings.responses, parts.clock)
        if parts.state is None
        else SharedMemory(settings.responses, parts.state)
    )
    app.state.large_bodies = large_body_queue()
    app.state.page = parts.page
    app.state.needs_key = bool(parts.keys)
    app.state.open_paths = (*OPEN_PATHS, *split_list(settings.open_routes))
    app.state.schemas = [
        feature.SCHEMAS for feature in (chat, completions, conversations, files, messages, responses, tokenize)
    ]


def _middleware(parts: _Parts) -> list[Middleware]:
    """Outermost first."""
    settings, limits = parts.settings, parts.limits
    return [
        *_outer_middleware(settings, parts.measurements),
        Middleware(
            AuthenticationMiddleware,
            keys=parts.keys,
            open_paths=(*OPEN_PATHS, *split_list(settings.open_routes), *parts.page),
            metrics_key=settings.metrics_key.get_secret_value() if settings.metrics_key else None,
        ),
        Middleware(
            RateLimitMiddleware,
            metrics=parts.measurements,
            counts_of=(lambda _: LocalCounts(parts.clock)) if limits is None else limits.of_key,
        ),
        *_inner_middleware(settings),
    ]


def _outer_middleware(settings: Settings, measurements: Metrics) -> list[Middleware]:
    origins = split_list(settings.cors_origins)
    return [
        Middleware(
            AccessLogMiddleware, metrics=measurements, log=settings.access_log, server_name=settings.server_name
        ),
        Middleware(HeadMiddleware),
        *([Middleware(CorsMiddleware, origins=origins)] if origins else []),
        Middleware(ErrorMiddleware, bodies={messages_errors.PATH: messages_errors.error_body}),
    ]


def _inner_middleware(settings: Settings) -> list[Middleware]:
    return [
        Middleware(
            BodyLimitMiddleware, max_bytes=settings.max_body_bytes, max_upload_bytes=settings.files.max_file_bytes
        ),
        Middleware(DisconnectMiddleware),
    ]


def _find_file(
    store: FileStore, file_id: str, tenant: str, loop: asyncio.AbstractEventLoop | None = None
) -> StoredFile | None:
    """The uploaded file of an id, if the tenant has one."""
    record = store.get(file_id, tenant)
    return None if record is None else StoredFile(record.id, str(store.path(record, tenant)), record.modality)


def _file_store(settings: Settings, state: SharedState | None) -> Files:
    if settings.files.store is None:
        return FileStore(settings.files, settings.data_dir)
    if state is None:
        raise SharedStateError("files.store needs state_url to be set as well: records of shared files are kept there.")
    return SharedFileStore(settings.files, settings.data_dir, state)


async def _find_shared(store: Files, file_id: str, tenant: str) -> StoredFile | None:
    try:
        record = await store.find(file_id, tenant, param="file_id")
        return StoredFile(record.id, str(await store.content(record, tenant)), record.modality)
    except NotFoundError:
        return None


def _wait_for_file(store: Files, file_id: str, tenant: str, loop: asyncio.AbstractEventLoop) -> StoredFile | None:
    """As `_find_file` of a store that has to be waited for; called outside of the event loop.

    Raises:
        UnavailableError: the store does not answer.
    """
    return asyncio.run_coroutine_threadsafe(_find_shared(store, file_id, tenant), loop).result()


def _warn_of_orphans(store: FileStore, keys: KeyRing) -> None:
    if num_orphaned := store.num_orphaned([key.tenant for key in keys.all] or [""]):
        _log.warning(
            "%d uploaded files belong to keys that are not known any more, or that were given in another way; "
            "they are kept until they expire (docs/deploy/api-keys.md)",
            num_orphaned,
        )
