"""Server-sent events: encoding, comments that keep a silent connection open, an error in the stream, the end mark.

What it does not: know what the events say, or notice a departed client (`server/middleware/disconnect.py` cancels
the stream).
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.core.errors import ApiError, UnavailableError, report_error

DONE = b"data: [DONE]\n\n"
LAST_WORDS_S = 1.0
"""How long a stream that is cut tries to say so."""
KEEP_ALIVE = b": keep-alive\n\n"


def nothing_to_tell() -> None:
    """The status of a stream that has none."""


class Event(Protocol):
    """Anything that can be sent."""

    def encode(self) -> bytes:
        """The event's data, on one line."""


class ErrorBody:
    """An error as an event: the one error body.

    Args:
        error: what to tell.
    """

    def __init__(self, error: ApiError) -> None:
        """See the class."""
        self._body = error.body()

    def encode(self) -> bytes:
        """The body as JSON."""
        return json.dumps(self._body, ensure_ascii=False, separators=(",", ":")).encode()


class EventStream(Response):
    """The response that sends events as they come.

    The status line goes out with the first event, so an error before it is still an HTTP error. After `keep_alive_s`
    without any, the stream is opened by a comment: a long preparation must not look like a dead connection. Errors from
    then on are one event, followed by the end mark.

    Args:
        events: what to send; closed at the end, also when the response is cancelled.
        keep_alive_s: silence after which a comment is sent, in seconds.
        status: asked for the text of that comment; None for the usual one.
        failure: the event that tells of an error.
        named: write the `type` every event has as its name, too, and no end mark, as the Responses API does.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[Event, None],
        *,
        keep_alive_s: float,
        status: Callable[[], str | None] = nothing_to_tell,
        failure: Callable[[ApiError], Event] = ErrorBody,
        named: bool = False,
    ) -> None:
        """See the class."""
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._events = events
        self._keep_alive_s = keep_alive_s
        self._status = status
        self._failure = failure
        self._named = named

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything.

        Raises:
            Exception: what `events` raised before the stream was open.
        """
        queue: asyncio.Queue[Event | Exception | None] = asyncio.Queue(maxsize=1)
        pump = asyncio.create_task(self._pump(queue))
        begun = False
        try:
            item = await self._next(queue)
            if isinstance(item, Exception):
                raise item
            begun = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while item is not None:
                await send({"type": "http.response.body", "body": self._frame(item, scope), "more_body": True})
                item = None if isinstance(item, Exception) else await self._next(queue)
            await send({"type": "http.response.body", "body": b"" if self._named else DONE, "more_body": False})
        except asyncio.CancelledError:
            # The server stops, or the client has gone, which is not told by this and does not mind.
            if begun:
                event = self._frame(UnavailableError("The server is stopping."), scope)
                with suppress(TimeoutError):  # of a client that does not read
                    async with asyncio.timeout(LAST_WORDS_S):
                        await send({"type": "http.response.body", "body": event, "more_body": False})
            raise
        finally:
            pump.cancel()
            await asyncio.wait({pump})

    async def _pump(self, queue: "asyncio.Queue[Event | Exception | None]") -> None:
        """Run the generator in one task from start to close, as its timeouts and task groups need."""
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    await queue.put(event)
        except Exception as error:
            await queue.put(error)
        else:
            await queue.put(None)

    async def _next(self, queue: "asyncio.Queue[Event | Exception | None]") -> "Event | Exception | bytes | None":
        try:
            # Not wait_for, which until Python 3.12 swallows a cancellation that meets a result.
            async with asyncio.timeout(self._keep_alive_s):
                return await queue.get()
        except TimeoutError:
            text = self._status()
            return KEEP_ALIVE if text is None else f": {text}\n\n".encode()

    def _frame(self, item: Event | Exception | bytes, scope: Scope) -> bytes:
        if isinstance(item, bytes):
            return item
        event = self._failure(report_error(item, scope)) if isinstance(item, Exception) else item
        name = f"event: {event.type}\n".encode() if self._named else b""  # type: ignore[attr-defined]
        return name + b"data: " + event.encode() + b"\n\n"
