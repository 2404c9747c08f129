"""Server-sent events: framing, comments that keep a silent connection open, an error in the stream, the end mark.

What it does not: know what the events mean, or notice a departed client (`server/middleware/disconnect.py` cancels
the stream).
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.core.errors import ApiError, UnavailableError, report_error

DONE = b"data: [DONE]\n\n"
LAST_WORDS_S = 1.0
"""How long a stream that is cut tries to say so."""
KEEP_ALIVE = b": keep-alive\n\n"

Source = TypeVar("Source")


@dataclass(frozen=True, slots=True)
class Event:
    """One event."""

    data: bytes
    """On one line."""
    name: str | None = None

    def frame(self) -> bytes:
        """The event as it is sent."""
        name = b"" if self.name is None else b"event: " + self.name.encode() + b"\n"
        return name + b"data: " + self.data + b"\n\n"


def error_event(error: ApiError) -> Event:
    """An error as an event: the one error body."""
    return Event(json.dumps(error.body(), ensure_ascii=False, separators=(",", ":")).encode())


def no_status() -> None:
    """The status of a stream that has none."""


class EventStream(Response, Generic[Source]):
    """The response that sends events as they come.

    The status line goes out with the first event, so an error before it is still an HTTP error. After `keep_alive_s`
    without any, the stream is opened by a comment: a long preparation must not look like a dead connection. Errors from
    then on are one event, followed by the end mark.

    Args:
        source: what to send; closed at the end, also when the response is cancelled.
        encode: the events that each item of the source becomes.
        keep_alive_s: silence after which a comment is sent, in seconds.
        status: the text of that comment; None for the usual one.
        failure: the event that reports an error.
        end: the end mark.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        source: AsyncGenerator[Source, None],
        encode: Callable[[Source], Iterable[Event]],
        *,
        keep_alive_s: float,
        status: Callable[[], str | None] = no_status,
        failure: Callable[[ApiError], Event] = error_event,
        end: bytes = DONE,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._source = source
        self._encode = encode
        self._keep_alive_s = keep_alive_s
        self._status = status
        self._failure = failure
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything.

        Raises:
            Exception: what `source` raised before the stream was open.
        """
        queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(maxsize=1)
        pump = asyncio.create_task(self._pump(queue))
        begun = False
        try:
            item = await self._next(queue)
            if isinstance(item, Exception):
                raise item
            begun = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while item is not None:
                frame = self._failure(report_error(item, scope)).frame() if isinstance(item, Exception) else item
                await send({"type": "http.response.body", "body": frame, "more_body": True})
                item = None if isinstance(item, Exception) else await self._next(queue)
            await send({"type": "http.response.body", "body": self._end, "more_body": False})
        except asyncio.CancelledError:
            # The server stops, or the client is gone; the latter does not receive this.
            if begun:
                frame = self._failure(report_error(UnavailableError("The server is stopping."), scope)).frame()
                with suppress(TimeoutError):  # of a client that does not read
                    async with asyncio.timeout(LAST_WORDS_S):
                        await send({"type": "http.response.body", "body": frame, "more_body": False})
            raise
        finally:
            pump.cancel()
            await asyncio.wait({pump})

    async def _pump(self, queue: "asyncio.Queue[bytes | Exception | None]") -> None:
        """Run the generator in one task from start to close, as its timeouts and task groups need."""
        try:
            async with aclosing(self._source) as source:
                async for item in source:
                    for event in self._encode(item):
                        await queue.put(event.frame())
        except Exception as error:
            await queue.put(error)
        else:
            await queue.put(None)

    async def _next(self, queue: "asyncio.Queue[bytes | Exception | None]") -> bytes | Exception | None:
        """The next frame, the error that ends the stream, or None at its end; a comment where nothing comes."""
        try:
            # Not wait_for, which until Python 3.12 swallows a cancellation that meets a result.
            async with asyncio.timeout(self._keep_alive_s):
                return await queue.get()
        except TimeoutError:
            text = self._status()
            return KEEP_ALIVE if text is None else f": {text}\n\n".encode()
