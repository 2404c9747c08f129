"""The application: routes, and the layers every request passes.

From the outside in: access (id, log, metrics), CORS where configured, boundary (errors become bodies), auth,
limits of the key, body limit, disconnect, routes.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from server.access import Access
from server.auth import Auth
from server.body import BodyLimit
from server.boundary import Boundary, translate_http_exception
from server.cors import Cors
from server.disconnect import Disconnect
from server.files.store import FileStore
from server.keys import KeyRing
from server.limits import Limits
from server.metrics import Metrics
from server.playground import read_page
from server.routes import (
    chat,
    completions,
    files,
    health,
    metrics,
    models,
    openapi,
    playground,
    preview,
    responses,
    tokenize,
)
from server.service import OpenModel, Service
from server.settings import Settings, split_list

OPEN_PATHS = ("/health",)
"""Paths that need no key, besides those of the page."""


def create_app(settings: Settings, open_model: OpenModel) -> FastAPI:
    """The ASGI application; its lifespan opens and closes the model.

    Args:
        settings: of the server.
        open_model: brings up what answers requests.

    Raises:
        KeyFileError: the key file cannot be used.
    """
    measurements = Metrics()
    keys = KeyRing(
        split_list(settings.api_key.get_secret_value() if settings.api_key else None), settings.api_keys_file
    )
    service = Service(settings, open_model, measurements)
    store = FileStore(settings.files, settings.data_folder)
    page = read_page()
    measurements.follow_files(store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with store.running(), service.running():
            yield

    app = FastAPI(
        title="Tessera",
        version=version("tessera-serve"),
        description="Qwen2-VL behind the OpenAI API: text, pictures and video.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            Middleware(Access, metrics=measurements, log=settings.access_log),
            *([Middleware(Cors, origins=origins)] if (origins := split_list(settings.cors_origins)) else []),
            Middleware(Boundary),
            Middleware(Auth, keys=keys, open_paths=(*OPEN_PATHS, *page)),
            Middleware(Limits, metrics=measurements),
            Middleware(BodyLimit, max_bytes=settings.max_body_bytes, max_upload_bytes=settings.files.max_file_bytes),
            Middleware(Disconnect),
        ],
        exception_handlers={HTTPException: translate_http_exception},
    )
    app.state.service = service
    app.state.files = store
    app.state.page = page
    app.state.needs_key = bool(keys)
    families = (chat, preview, responses, files, completions, tokenize, models, health, metrics, openapi, playground)
    for family in families:
        app.include_router(family.router)
    return app
