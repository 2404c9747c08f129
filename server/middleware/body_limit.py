"""Body limit: refuses request bodies over a size while they arrive, before anything reads them."""

from collections import Counter
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_executor.fair_queue import CLIENT
from server.core.errors import RateLimitError, TooLargeError

UPLOAD_PATH = "/v1/files"
FORM_BYTES = 64 << 10
"""What a form may have around its file."""
MAX_BODIES = 4
"""Bodies of the maximum size that may be in memory at a time, or as many bytes in smaller ones."""


class Arrivals:
    """The memory of all bodies that arrive or are being read, bounded.

    Args:
        max_bytes: a client may use its equal share of this, and more only while there is room.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes: Counter[str] = Counter()

    @property
    def num_bytes(self) -> int:
        """Bytes of all bodies."""
        return self._num_bytes.total()

    def add(self, client: str, num_bytes: int) -> None:
        """Count bytes of a client that have arrived.

        Raises:
            RateLimitError: there is no room for them, and the client uses its share.
        """
        own = self._num_bytes[client] + num_bytes
        share = self._max_bytes / len(self._num_bytes.keys() | {client})
        if own > share and self.num_bytes + num_bytes > self._max_bytes:
            raise RateLimitError("The server is busy with the bodies of other requests; retry later.")
        self._num_bytes[client] = own

    def remove(self, client: str, num_bytes: int) -> None:
        """Stop counting them."""
        self._num_bytes[client] -= num_bytes
        if not self._num_bytes[client]:
            del self._num_bytes[client]


class _Arrival:
    """One request's body in `Arrivals`."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._client = CLIENT.get()
        self._num_bytes = 0

    def add(self, num_bytes: int) -> None:
        self._arrivals.add(self._client, num_bytes)
        self._num_bytes += num_bytes

    def end(self) -> None:
        self._arrivals.remove(self._client, self._num_bytes)
        self._num_bytes = 0


@dataclass(frozen=True, slots=True)
class _Limit:
    max_bytes: int
    message: str


class BodyLimitMiddleware:
    """Middleware that refuses bodies over a size: at once where the size is declared, else on the byte too many.

    Args:
        app: the application inside.
        max_bytes: the largest body let through.
        max_upload_bytes: the largest file, on the route that takes files.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_upload_bytes: int) -> None:
        self._app = app
        self._arrivals = Arrivals(MAX_BODIES * max_bytes)
        self._json = _Limit(max_bytes, f"The request body is over the limit of {max_bytes} bytes (max_body_bytes).")
        self._upload = _Limit(
            max_upload_bytes + FORM_BYTES,
            f"The request body cannot hold a file within the limit of {max_upload_bytes} bytes (files.max_file_bytes).",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            TooLargeError: the body is over the limit.
            RateLimitError: there is no memory for it at the moment.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._upload if scope["path"] == UPLOAD_PATH else self._json
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit.max_bytes:
            raise TooLargeError(limit.message, code="body_too_large")
        num_bytes = 0
        arrival = scope.setdefault("state", {})["arrival"] = _Arrival(self._arrivals)

        async def counted() -> Message:
            nonlocal num_bytes
            event = await receive()
            num_new_bytes = len(event.get("body", b""))
            num_bytes += num_new_bytes
            if num_bytes > limit.max_bytes:
                raise TooLargeError(limit.message, code="body_too_large")
            if limit is self._json:  # a file is written to the disk as it arrives
                arrival.add(num_new_bytes)
            return event

        try:
            await self._app(scope, counted, send)
        finally:
            arrival.end()
