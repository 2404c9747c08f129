"""One client's connection: what it may cost before a key has been seen.

Uvicorn's httptools side bounds neither the size of a request's head, nor the number of its fields, nor the time that
head or body take to come, nor the number of connections. Here all are bounded, the trailers of a chunked body
included; a client that exceeds a bound gets an answer that says so, and the connection is closed.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.core.errors import ApiError, BadRequestError, ClientError, UnavailableError

MAX_HEAD_BYTES = 64 << 10
"""Request line, header fields and trailer fields of one request together."""
MAX_FIELDS = 128
"""Number of header fields and trailer fields of one request together."""
MAX_PIPELINED = 16
"""Requests of one connection that may wait for the answers to earlier ones."""
HEAD_TIMEOUT_S = 30.0
"""Longest time from the start of a connection, or the first byte of a later request, to the end of the head."""
BODY_WINDOW_S = 30.0
"""How often the rate of a body is looked at."""
MIN_WINDOW_BYTES = 16 << 10
"""Least of a body that must come in such a time, unless the body ends; 550 bytes a second."""
LINGER_S = 5.0
"""How long a refused client is still read from, so that it gets to see the answer instead of a reset connection."""
_LINGER_PAUSE_S = 0.02
"""Time between two such reads, of 256 KB at most."""


class HeadTooLargeError(ClientError):
    """Request line, header fields or trailers are over a limit."""

    status = 431
    default_code = "head_too_large"


class RequestTimeoutError(ClientError):
    """Head or body of a request did not come in time."""

    status = 408
    default_code = "request_timeout"


class Connections:
    """What the connections of one server share.

    Args:
        most: how many there may be. One more takes the place of the one that has waited for longest: a client that
            is silent, or between two requests, never one that sends a body or is being answered.
        count_refusal: called with the code of each refusal.
    """

    def __init__(self, most: int, count_refusal: Callable[[str], None]) -> None:
        self.most = most
        self.count_refusal = count_refusal
        self.waiting: OrderedDict[Connection, None] = OrderedDict()
        """Those that may be closed without loss, the one that has waited for longest first."""


class Connection(HttpToolsProtocol):
    """Uvicorn's connection with bounds; uvicorn makes one for each client.

    Args:
        shared: what it shares with the others.
        arguments: uvicorn's own.
    """

    def __init__(self, shared: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._shared = shared
        self._in_head = False
        self._in_body = False
        self._refused = False
        self._num_pending_bytes = 0
        self._num_window_bytes = 0
        self._num_fields = 0
        self._num_field_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The time for the first head begins, if there is room for one more."""
        super().connection_made(transport)
        if len(self.connections) > self._shared.most:
            if not self._shared.waiting:
                self._refuse(UnavailableError("The server has too many connections.", code="too_many_connections"))
                return
            oldest, _ = self._shared.waiting.popitem(last=False)
            oldest.give_way()
        self._shared.waiting[self] = None
        self._deadline = self.loop.call_later(HEAD_TIMEOUT_S, self._time_out_head)

    def give_way(self) -> None:
        """Close without a word: the place is wanted."""
        self._shared.count_refusal("gave_way")
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._shared.waiting.pop(self, None)
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and see that heads come to an end."""
        if self._refused:
            self.transport.pause_reading()
            self.loop.call_later(_LINGER_PAUSE_S, self._resume_lingering)
            return
        self._num_pending_bytes += len(data)
        super().data_received(data)
        if self._num_pending_bytes > MAX_HEAD_BYTES:  # of a field that has not ended, which the parser keeps to itself
            self._refuse(_too_large())
        elif self._deadline is None and not self.transport.is_closing():
            if self._in_body:
                self._watch_body()
            elif self._in_head or self._num_pending_bytes:
                self._deadline = self.loop.call_later(HEAD_TIMEOUT_S, self._time_out_head)

    def send_400_response(self, msg: str) -> None:
        """What the parser does not understand, or one of the callbacks below has refused, ends the connection."""
        if not self._refused:
            self._refuse(BadRequestError("The request is not valid HTTP.", code="invalid_http"))

    # Called by the parser; what they raise makes it stop.

    def on_message_begin(self) -> None:
        """A head begins."""
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop_parsing(_too_many_pipelined())
        self._in_head = True
        self._num_fields = self._num_field_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """The request's target, or a piece of it."""
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or a trailer; nothing here reads trailers."""
        self._num_fields += 1
        self._count(name, value)
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._in_head, self._in_body = False, True
        self._num_pending_bytes = 0
        self._shared.waiting.pop(self, None)
        self._clear_deadline()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._num_pending_bytes = 0
        self._num_window_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Body and trailers have ended."""
        self._in_body = False
        self._num_pending_bytes = 0
        self._clear_deadline()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer has gone out. If it came before the end of the request, the rest of that is not wanted."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._in_body:
            self._hang_up()
        elif self.cycle.response_complete:
            self._shared.waiting[self] = None

    def _count(self, *pieces: bytes) -> None:
        self._num_field_bytes += sum(map(len, pieces))
        if self._num_field_bytes > MAX_HEAD_BYTES or self._num_fields > MAX_FIELDS:
            self._stop_parsing(_too_large())

    def _stop_parsing(self, error: ClientError) -> None:
        self._refuse(error)
        raise error

    def _time_out_head(self) -> None:
        self._refuse(RequestTimeoutError(f"The request's head did not come within {HEAD_TIMEOUT_S:.0f} s."))

    def _watch_body(self) -> None:
        self._num_window_bytes = 0
        self._deadline = self.loop.call_later(BODY_WINDOW_S, self._look_at_body)

    def _look_at_body(self) -> None:
        if self.flow.read_paused or self._num_window_bytes >= MIN_WINDOW_BYTES:  # paused: the server is the slow one
            self._watch_body()
        else:
            self._refuse(RequestTimeoutError(f"The request's body came to a standstill for {BODY_WINDOW_S:.0f} s."))

    def _refuse(self, error: ApiError) -> None:
        """Answer with an error, unless another answer is owed or under way, and close."""
        assert error.code is not None
        self._shared.count_refusal(error.code)
        cycle = self.cycle
        if not self.pipeline and (cycle is None or cycle.response_complete or self._is_unanswered()):
            self.transport.write(_response(error))
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        self._hang_up()

    def _is_unanswered(self) -> bool:
        """Whether the request whose body is being read has no answer yet."""
        return self._in_body and not self.cycle.response_started

    def _hang_up(self) -> None:
        """Close, but leave the client time to read the answer: unread bytes would reset the connection."""
        self._refused = True
        self._in_head = False
        self._num_pending_bytes = 0
        self._clear_deadline()
        self._unset_keepalive_if_required()
        if not self.transport.can_write_eof():  # TLS has no half-closed connections
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._deadline = self.loop.call_later(LINGER_S, self.transport.close)

    def _resume_lingering(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _too_large() -> HeadTooLargeError:
    return HeadTooLargeError(
        f"The request's head is too large: at most {MAX_HEAD_BYTES} bytes and {MAX_FIELDS} fields are supported, "
        "trailers included."
    )


def _too_many_pipelined() -> BadRequestError:
    return BadRequestError(f"More than {MAX_PIPELINED} pipelined requests are not supported.", code="invalid_http")


def _response(error: ApiError) -> bytes:
    """A whole response with the API's error body."""
    body = json.dumps(error.body()).encode()
    fields = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return STATUS_LINE[error.status] + fields.encode() + body
