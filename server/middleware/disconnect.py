"""Disconnect middleware: cancels the work for a client as soon as it disconnects, streaming or not.

The application reads the body; after its end, the only event that can still arrive is the disconnect, which is awaited
instead of polled.
"""

import asyncio
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class DisconnectMiddleware:
    """Middleware that cancels the application inside when the client has disconnected.

    Args:
        app: the application inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; returns without a response if the client has disconnected."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body_read = asyncio.Event()
        disconnected = asyncio.Event()

        async def receive_body() -> Message:
            if body_read.is_set():
                await disconnected.wait()
                return {"type": "http.disconnect"}
            event = await receive()
            if event["type"] == "http.disconnect":
                disconnected.set()
            if not event.get("more_body", False):
                body_read.set()
            return event

        async def wait_for_disconnect() -> None:
            await body_read.wait()
            while not disconnected.is_set():
                if (await receive())["type"] == "http.disconnect":
                    disconnected.set()

        async def work() -> None:
            await self._app(scope, receive_body, send)

        await _run_until(asyncio.create_task(work()), asyncio.create_task(wait_for_disconnect()))


async def _run_until(work: asyncio.Task[None], disconnect: asyncio.Task[None]) -> None:
    """Wait for the work; cancel it on disconnect, and when the server itself cancels the request."""
    try:
        await asyncio.wait({work, disconnect}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        disconnect.cancel()
        work.cancel()
        await asyncio.wait({work, disconnect})
    if not work.cancelled():
        with suppress(ClientDisconnect):  # the client disconnected while its body was read
            work.result()
