"""Rate-limit middleware: rejects POST requests of a key that has reached one of its limits.

Only POST requests count: the others cost too little.
"""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from server.auth.api_keys import Key
from server.auth.rate_limits import KeyCounts, KeyUsage
from server.core.metrics import Metrics


class RateLimitMiddleware:
    """Middleware that enforces the limits of each key; needs the key from `AuthenticationMiddleware` outside of it.

    Sets `scope["state"]["key_usage"]` to the key's usage.

    Args:
        app: the application inside.
        metrics: counts the usage.
        counts_of: what keeps the counts of the key of a name.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, counts_of: Callable[[str], KeyCounts]) -> None:
        self._app = app
        self._metrics = metrics
        self._counts_of = counts_of
        self._usage_by_name: dict[str, KeyUsage] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            KeyLimitError: the key has reached a limit.
            UnavailableError: nobody can tell at the moment.
        """
        key: Key | None = scope.get("state", {}).get("key")
        if scope["type"] != "http" or key is None:
            await self._app(scope, receive, send)
            return
        usage = scope["state"]["key_usage"] = self._usage(key)
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        await usage.enter()
        try:
            await self._app(scope, receive, send)
        finally:
            await usage.leave()

    def _usage(self, key: Key) -> KeyUsage:
        usage = self._usage_by_name.get(key.name)
        if usage is None:
            usage = self._usage_by_name[key.name] = KeyUsage(key, self._metrics, self._counts_of(key.name))
        usage.update_key(key)
        return usage
