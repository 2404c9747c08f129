"""Creates the application: features' routes, and the middleware every request passes.

From the outside in: access log (id, log, metrics), HEAD as GET, CORS where configured, errors (become bodies), auth,
limits of the key, body limit, disconnect, routes.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from server.api.request_body import large_body_queue
from server.auth.api_keys import KeyRing
from server.chat import preview_router
from server.chat import router as chat
from server.completions import router as completions
from server.core.concurrency import forever, watch_loop
from server.core.metrics import Metrics
from server.core.settings import Settings, split_list
from server.files import router as files
from server.files.store import FileStore
from server.generation.model_service import ModelService, OpenModel
from server.middleware.access_log import AccessLogMiddleware
from server.middleware.authentication import AuthenticationMiddleware
from server.middleware.body_limit import BodyLimitMiddleware
from server.middleware.cors import CorsMiddleware
from server.middleware.disconnect import DisconnectMiddleware
from server.middleware.errors import ErrorMiddleware, translate_http_exception
from server.middleware.head import HeadMiddleware
from server.middleware.rate_limit import RateLimitMiddleware
from server.ops import health, metrics, models, openapi, playground
from server.ops.playground_files import read_page
from server.prompt.messages import StoredFile
from server.responses import router as responses
from server.tokenize import router as tokenize

_log = logging.getLogger("tessera.app")

OPEN_PATHS = ("/health",)
"""Paths that need no key, in addition to those of the page."""


_FEATURES = (
    chat,
    preview_router,
    responses,
    files,
    completions,
    tokenize,
    models,
    health,
    metrics,
    openapi,
    playground,
)


def create_app(settings: Settings, open_model: OpenModel, *, clock: Callable[[], float] = time.monotonic) -> FastAPI:
    """The ASGI application; its lifespan opens and closes the model.

    Args:
        settings: of the server.
        open_model: brings up what answers requests.
        clock: in seconds; keys and their limits go by it.

    Raises:
        KeyFileError: the key file cannot be used.
    """
    measurements = Metrics(shows_keys=settings.metrics_key is not None)
    fixed_keys = split_list(settings.api_key.get_secret_value() if settings.api_key else None)
    keys = KeyRing(fixed_keys, settings.api_keys_file, clock=clock)
    service = ModelService(settings.model_name, open_model, measurements)
    store = FileStore(settings.files, settings.data_dir)
    page = read_page()
    measurements.add_files(store)
    store.on_delete(service.forget_file)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with store.running(), service.running():
            if num_orphaned := store.num_orphaned([key.tenant for key in keys.all] or [""]):
                _log.warning(
                    "%d uploaded files belong to keys that are not known any more, or that were given in another way; "
                    "they are kept until they expire (docs/deploy/api-keys.md)",
                    num_orphaned,
                )
            watching = asyncio.create_task(
                forever(lambda: watch_loop(measurements.loop_lag_s.observe), "the watch over the event loop")
            )
            try:
                yield
            finally:
                watching.cancel()

    app = FastAPI(
        title="Tessera",
        version=version("tessera-serve"),
        description="Qwen2-VL and Qwen2.5-VL behind the OpenAI API: text, images and video.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            *_outer_middleware(settings, measurements),
            Middleware(
                AuthenticationMiddleware,
                keys=keys,
                open_paths=(*OPEN_PATHS, *page),
                metrics_key=settings.metrics_key.get_secret_value() if settings.metrics_key else None,
            ),
            Middleware(RateLimitMiddleware, metrics=measurements, clock=clock),
            *_inner_middleware(settings),
        ],
        exception_handlers={HTTPException: translate_http_exception},
    )
    app.state.settings = settings
    app.state.service = service
    app.state.files = store
    app.state.find_file = partial(_find_file, store)
    app.state.large_bodies = large_body_queue()
    app.state.page = page
    app.state.needs_key = bool(keys)
    app.state.schemas = [feature.SCHEMAS for feature in (chat, completions, files, responses, tokenize)]
    for feature in _FEATURES:
        app.include_router(feature.router)
    return app


def _outer_middleware(settings: Settings, measurements: Metrics) -> list[Middleware]:
    origins = split_list(settings.cors_origins)
    return [
        Middleware(AccessLogMiddleware, metrics=measurements, log=settings.access_log),
        Middleware(HeadMiddleware),
        *([Middleware(CorsMiddleware, origins=origins)] if origins else []),
        Middleware(ErrorMiddleware),
    ]


def _inner_middleware(settings: Settings) -> list[Middleware]:
    return [
        Middleware(
            BodyLimitMiddleware, max_bytes=settings.max_body_bytes, max_upload_bytes=settings.files.max_file_bytes
        ),
        Middleware(DisconnectMiddleware),
    ]


def _find_file(store: FileStore, file_id: str, tenant: str) -> StoredFile | None:
    """The uploaded file of an id, if the tenant has one."""
    record = store.get(file_id, tenant)
    return None if record is None else StoredFile(str(store.path(record, tenant)), record.modality)
