"""Access-log middleware, the outermost one: request ids, one log line per request, HTTP metrics.

A log line has the client, the path, the key's name, the status and the duration, and the paths of fields that were left
out (`server/api/ignored.py`); never bodies, prompts, answers, keys or query strings.
"""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api import ignored
from server.auth.rate_limits import KeyUsage
from server.core.metrics import Metrics

HEADER = "x-request-id"
ANTHROPIC_HEADER = "request-id"
"""The same id under the name that Anthropic's clients read."""
SERVER_HEADER = "x-tessera-server"
"""The name of the server that answered, of several."""
DURATION_HEADER = "openai-processing-ms"
"""Milliseconds until the response began, under the name OpenAI's clients look for."""
CLIENT_GONE_STATUS = 499
"""Logged when no response was sent because the client had disconnected."""

_VALID_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_log = logging.getLogger("tessera.access")


class AccessLogMiddleware:
    """Middleware that assigns request ids, logs requests and counts them.

    Sets `scope["state"]["request_id"]` to the client's own id if it sent a valid one, otherwise to a new one, and
    `scope["state"]["ignored"]` to a list that takes the paths of fields that are left out.

    Args:
        app: the application inside.
        metrics: counts the requests.
        log: whether to write log lines.
        server_name: of several servers, this one's.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, log: bool, server_name: str | None = None) -> None:
        self._app = app
        self._is_logging = log
        self._metrics = metrics
        self._server_name = server_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        scope["state"]["ignored"] = []
        status = CLIENT_GONE_STATUS
        started_at_s = time.perf_counter()

        async def send_with_headers(event: Message) -> None:
            nonlocal status
            if event["type"] == "http.response.start":
                status = event["status"]
                headers = MutableHeaders(scope=event)
                headers[HEADER] = headers[ANTHROPIC_HEADER] = request_id
                if self._server_name is not None:
                    headers[SERVER_HEADER] = self._server_name
                headers[DURATION_HEADER] = str(round((time.perf_counter() - started_at_s) * 1000))
                if scope["state"]["ignored"]:
                    headers[ignored.HEADER] = ignored.header_value(scope["state"]["ignored"])
                if (usage := _key_usage(scope)) is not None:
                    headers.update(usage.headers())
            await send(event)

        with self._metrics.requests_in_flight.track_inprogress():
            try:
                await self._app(scope, receive, send_with_headers)
            finally:
                duration_s = time.perf_counter() - started_at_s
                self._metrics.count_request(_route(scope), scope["method"], status, duration_s)
                if (error := scope["state"].get("error")) is not None:
                    self._metrics.count_error(error)
                if (usage := _key_usage(scope)) is not None:
                    self._metrics.count_key_request(usage.name, status)
                if self._is_logging and not _is_usual_health(scope, status):
                    _log.info("request", extra={"fields": _log_fields(scope, request_id, status, duration_s)})


def _is_usual_health(scope: Scope, status: int) -> bool:
    """Probes and open pages ask every second or so; whether the model answers, the server prints when it changes."""
    return status in (200, 503) and scope["path"] == "/health"


def _request_id(headers: Headers) -> str:
    value = headers.get(HEADER, "")
    return value if _VALID_ID.fullmatch(value) else f"req_{uuid.uuid4().hex}"


def _route(scope: Scope) -> str:
    """The route's template, from a fixed set; never the path, which the client chooses."""
    return getattr(scope.get("route"), "path", "unknown")


def _key_usage(scope: Scope) -> KeyUsage | None:
    """Of the request's key; set by `RateLimitMiddleware`."""
    usage: KeyUsage | None = scope["state"].get("key_usage")
    return usage


def _log_fields(scope: Scope, request_id: str, status: int, duration_s: float) -> dict[str, object]:
    client = scope.get("client")
    return {
        "request_id": request_id,
        "client": client[0] if client else None,
        "key": usage.name if (usage := _key_usage(scope)) else None,
        "method": scope["method"],
        "path": scope["path"][:256],
        "status": status,
        "duration_ms": round(duration_s * 1000, 1),
        **({"ignored": ignored.header_value(paths)} if (paths := scope["state"]["ignored"]) else {}),
    }
