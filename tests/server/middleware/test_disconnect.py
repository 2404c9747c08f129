"""A client that leaves: what works for it is cancelled, whatever it is doing."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request

from server.middleware.disconnect import DisconnectMiddleware

SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": []}


class Client:
    """Sends a body in pieces and leaves when told to."""

    def __init__(self, *pieces: bytes, leaves_early: bool = False) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for index, piece in enumerate(pieces):
            more = index < len(pieces) - 1 or leaves_early
            self.events.put_nowait({"type": "http.request", "body": piece, "more_body": more})
        if leaves_early:
            self.leave()

    def leave(self) -> None:
        self.events.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> Any:
        return await self.events.get()


async def ignore(_: Any) -> None:
    pass


def application(work: Callable[[bytes], Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await work(await Request(scope, receive).body())

    return DisconnectMiddleware(app)


async def test_passes_the_body_on_and_returns_when_the_work_is_done() -> None:
    bodies: list[bytes] = []

    async def work(body: bytes) -> None:
        bodies.append(body)

    await application(work)(SCOPE, Client(b"ab", b"cd").receive, ignore)
    assert bodies == [b"abcd"]


async def test_cancels_the_work_of_a_client_that_left() -> None:
    client, started, cancelled = Client(b""), asyncio.Event(), asyncio.Event()

    async def work(_: bytes) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    serving = asyncio.create_task(application(work)(SCOPE, client.receive, ignore))
    await started.wait()
    assert not cancelled.is_set()
    client.leave()
    await asyncio.wait_for(serving, 10)
    assert cancelled.is_set()


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error() -> None:
    async def work(_: bytes) -> None:
        pytest.fail("the body never came")

    await asyncio.wait_for(application(work)(SCOPE, Client(b"ab", leaves_early=True).receive, ignore), 10)


async def test_errors_of_the_work_come_out() -> None:
    async def work(_: bytes) -> None:
        raise KeyError("fault")

    with pytest.raises(KeyError):
        await application(work)(SCOPE, Client(b"").receive, ignore)


async def test_the_server_may_cancel_a_request() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def work(_: bytes) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    serving = asyncio.create_task(application(work)(SCOPE, Client(b"").receive, ignore))
    await started.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert cancelled.is_set()


async def test_work_that_waits_for_the_departure_itself_hears_of_it() -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        heard.append("body")
        try:
            await receive()
        finally:
            heard.append("gone")

    client = Client(b"")
    client.leave()
    await asyncio.wait_for(DisconnectMiddleware(app)(SCOPE, client.receive, ignore), 10)
    assert heard == ["body", "gone"]
