"""The application over fakes: called directly, or behind a real server on a free port."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import pytest
from fastapi import FastAPI

from server.core.settings import Settings
from server.serve import Server, server_config
from tests.support.fakes import MODEL, FakeEngine, FakeMedia
from tests.support.waiting import until


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

    async def respond(self, **changes: Any) -> httpx.Response:
        """Ask for a response, with some fields changed."""
        return await self.client.post("/v1/responses", json={"model": MODEL, "input": "Hi.", **changes})


class Unread:
    """A request body that must not be read."""

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> bytes:
        """Fails the test."""
        pytest.fail("the body was read")


OpenWorld = Callable[..., AbstractAsyncContextManager[ServerFixture]]


@asynccontextmanager
async def serve_live(
    app: FastAPI, settings: Settings, *, port: int = 0
) -> AsyncIterator[tuple[httpx.AsyncClient, Callable[[], None]]]:
    listener = socket.create_server(("127.0.0.1", port))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = Server(server_config(app, settings), app.state.service, url)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await until(lambda: server.started or running.done())

    try:
        yield httpx.AsyncClient(base_url=url, timeout=20), lambda: server.handle_exit(signal.SIGTERM, None)
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def serve_directly(app: FastAPI) -> AsyncIterator[tuple[httpx.AsyncClient, Callable[[], None]]]:
    async with app.router.lifespan_context(app):
        yield httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test"), lambda: None
