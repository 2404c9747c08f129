"""The outermost layer of a request: its id, its line in the access log, its part in the metrics.

The log says who asked for which path, with the key of which name, and how it went; bodies, prompts, answers, keys and
query strings are never in it.
"""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.auth.rate_limits import KeyUsage
from server.core.metrics import Metrics

HEADER = "x-request-id"
CLIENT_GONE_STATUS = 499
"""Logged when no answer was sent because nobody was there any more."""

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_log = logging.getLogger("tessera.access")


class AccessLogMiddleware:
    """Middleware that names, logs and counts requests.

    `scope["state"]["request_id"]` is the client's own id where it sent a sane one, else a new one.

    Args:
        app: the application inside.
        metrics: where to count.
        log: whether to write the line.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, log: bool) -> None:
        """See the class."""
        self._app = app
        self._logs = log
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        status = CLIENT_GONE_STATUS
        started_s = time.perf_counter()

        async def named(event: Message) -> None:
            nonlocal status
            if event["type"] == "http.response.start":
                status = event["status"]
                headers = MutableHeaders(scope=event)
                headers[HEADER] = request_id
                if (account := _account(scope)) is not None:
                    headers.update(account.headers())
            await send(event)

        with self._metrics.requests_in_flight.track_inprogress():
            try:
                await self._app(scope, receive, named)
            finally:
                duration_s = time.perf_counter() - started_s
                self._metrics.count_request(_route(scope), scope["method"], status, duration_s)
                if (error := scope["state"].get("error")) is not None:
                    self._metrics.count_error(error)
                if (account := _account(scope)) is not None:
                    self._metrics.count_key_request(account.name, status)
                if self._logs and not _is_good_health(scope, status):
                    _log.info("request", extra={"fields": _line(scope, request_id, status, duration_s)})


def _is_good_health(scope: Scope, status: int) -> bool:
    """Probes and open pages ask every few seconds; only an answer that is not 200 is news."""
    return status == 200 and scope["path"] == "/health"


def _request_id(headers: Headers) -> str:
    given = headers.get(HEADER, "")
    return given if _SANE_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


def _route(scope: Scope) -> str:
    """The template of the route, from a fixed set; never the path, which a client makes up."""
    return getattr(scope.get("route"), "path", "unknown")


def _account(scope: Scope) -> KeyUsage | None:
    """Of the key that was sent; the layers inside put it there."""
    account: KeyUsage | None = scope["state"].get("account")
    return account


def _line(scope: Scope, request_id: str, status: int, duration_s: float) -> dict[str, object]:
    client = scope.get("client")
    return {
        "request_id": request_id,
        "client": client[0] if client else None,
        "key": account.name if (account := _account(scope)) else None,
        "method": scope["method"],
        "path": scope["path"][:256],
        "status": status,
        "duration_ms": round(duration_s * 1000, 1),
    }
