"""The application over fakes: called directly, or behind a real server on a free port."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from fastapi import FastAPI

from model_executor.engine import EngineState
from model_executor.processor.tokenizer import Tokenizer
from server.app import create_app
from server.core.settings import Settings
from server.serve import Server, server_config
from tests.fakes import MODEL, FakeEngine, FakeMedia, opener


@pytest.fixture(scope="session")
def tokenizer(tiny_checkpoint: Path) -> Tokenizer:
    """The true Qwen tokenizer."""
    return Tokenizer(tiny_checkpoint)


@dataclass
class ServerFixture:
    """A server over fakes, and a client of it."""

    client: httpx.AsyncClient
    app: FastAPI
    engine: FakeEngine = field(default_factory=FakeEngine)
    media: FakeMedia = field(default_factory=FakeMedia)
    stop: Callable[[], None] = lambda: None
    """Sends a live server SIGTERM."""

    @property
    def url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def body(self, **changes: Any) -> dict[str, Any]:
        """A request with some fields changed; None is sent as null."""
        return {"model": MODEL, "messages": [{"role": "user", "content": "Hi."}], **changes}

    async def ask(self, **changes: Any) -> httpx.Response:
        """Send `body(**changes)`."""
        return await self.client.post("/v1/chat/completions", json=self.body(**changes))


class Unread:
    """A request body that must not be read."""

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> bytes:
        """Fails the test."""
        pytest.fail("the body was read")


OpenWorld = Callable[..., AbstractAsyncContextManager[ServerFixture]]


@pytest.fixture
def open_world(tokenizer: Tokenizer, tmp_path: Path) -> OpenWorld:
    """Opens a world: settings by name, other fakes than the plain ones, names of adapters, `live` for real sockets."""
    data_dir = tmp_path / "data"

    @asynccontextmanager
    async def opened(
        *,
        engine: FakeEngine | None = None,
        media: FakeMedia | None = None,
        live: bool = False,
        adapters: tuple[str, ...] = (),
        **settings: Any,
    ) -> AsyncIterator[ServerFixture]:
        engine, media = engine or FakeEngine(), media or FakeMedia()
        configured = Settings(**{"served_model_name": MODEL, "data_dir": data_dir, **settings})
        app = create_app(configured, opener(engine, media, tokenizer, adapters))
        running = serve_live(app, configured) if live else _direct(app)
        async with running as (client, stop), client:
            if engine.state is EngineState.READY:
                while app.state.service.state is not EngineState.READY:
                    await asyncio.sleep(0)
            yield ServerFixture(client, app, engine, media, stop)

    return opened


@pytest.fixture
async def world(open_world: OpenWorld) -> AsyncIterator[ServerFixture]:
    """A world with nothing special about it."""
    async with open_world() as opened:
        yield opened


@asynccontextmanager
async def _direct(app: FastAPI) -> AsyncIterator[tuple[httpx.AsyncClient, Callable[[], None]]]:
    async with app.router.lifespan_context(app):
        yield httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test"), lambda: None


@asynccontextmanager
async def serve_live(app: FastAPI, settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Callable[[], None]]]:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = Server(server_config(app, settings), app.state.service, url)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)

    try:
        yield httpx.AsyncClient(base_url=url, timeout=20), lambda: server.handle_exit(signal.SIGTERM, None)
    finally:
        server.should_exit = True
        await running
