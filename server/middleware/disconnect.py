"""A client that goes away: the work for it is cancelled at once, streaming or not.

The body is read by the application; from its end on, the only thing a client can still send is its departure, and that
is waited for, never polled.
"""

import asyncio
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class DisconnectMiddleware:
    """Middleware that cancels the application inside when the client has gone.

    Args:
        app: the application inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; returns without an answer when the client has gone."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body_read = asyncio.Event()
        gone = asyncio.Event()

        async def until_body_read() -> Message:
            if body_read.is_set():
                await gone.wait()
                return {"type": "http.disconnect"}
            event = await receive()
            if event["type"] == "http.disconnect":
                gone.set()
            if not event.get("more_body", False):
                body_read.set()
            return event

        async def departure() -> None:
            await body_read.wait()
            while not gone.is_set():
                if (await receive())["type"] == "http.disconnect":
                    gone.set()

        async def work() -> None:
            await self._app(scope, until_body_read, send)

        await _first_of(asyncio.create_task(work()), asyncio.create_task(departure()))


async def _first_of(work: asyncio.Task[None], departure: asyncio.Task[None]) -> None:
    """Wait for the work; cancel it on departure, and when the server itself cancels the request."""
    try:
        await asyncio.wait({work, departure}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        departure.cancel()
        work.cancel()
        await asyncio.wait({work, departure})
    if not work.cancelled():
        with suppress(ClientDisconnect):  # it left while its body was read
            work.result()
