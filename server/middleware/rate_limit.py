"""Rate limit: holds each API key to its requests and tokens a minute, and its requests at the same time.

Only POST requests count: the others cost nothing worth limiting.
"""

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from server.auth.api_keys import Key
from server.auth.rate_limits import KeyUsage
from server.core.metrics import Metrics


class RateLimitMiddleware:
    """Middleware that holds each key to its limits; stands inside of `AuthenticationMiddleware`, which names the key.

    `scope["state"]["account"]` is the key's account from here on.

    Args:
        app: the application inside.
        metrics: where use is counted.
        clock: in seconds.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        """See the class."""
        self._app = app
        self._metrics = metrics
        self._clock = clock
        self._accounts: dict[str, KeyUsage] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            LimitError: see the class.
        """
        key: Key | None = scope.get("state", {}).get("key")
        if scope["type"] != "http" or key is None:
            await self._app(scope, receive, send)
            return
        account = scope["state"]["account"] = self._account(key)
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        account.enter()
        try:
            await self._app(scope, receive, send)
        finally:
            account.leave()

    def _account(self, key: Key) -> KeyUsage:
        account = self._accounts.get(key.name)
        if account is None:
            account = self._accounts[key.name] = KeyUsage(key, self._metrics, self._clock)
        account.renew(key)
        return account
