"""How much one API key may ask: requests and tokens a minute, requests at the same time.

A rate is a bucket that holds a minute's worth and fills steadily. A request takes one from the first; tokens are taken
from the second as they are used, since nobody knows before how long an answer gets. So a request is let in while any
token is left, and what it uses beyond that is owed by those after it.

Only POST requests count: the others cost nothing worth limiting.
"""

import math
import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from server.auth.api_keys import Key
from server.core.errors import RateLimitError
from server.core.metrics import Metrics

MINUTE_S = 60.0
CONCURRENCY_RETRY_S = 1


class Bucket:
    """A steady rate with a minute's worth of slack.

    Args:
        per_minute: how many.
        clock: in seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        """Full."""
        self.per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._at_s = clock()

    def resize(self, per_minute: int) -> None:
        """Change the rate; what was used stays used."""
        used = self.per_minute - self._now()
        self.per_minute = per_minute
        self._level = per_minute - used

    def take(self, amount: float) -> None:
        """Use some; the level may fall below zero."""
        self._level = self._now() - amount

    @property
    def remaining(self) -> int:
        """Whole units left; not below zero."""
        return max(0, math.floor(self._now()))

    @property
    def reset_s(self) -> float:
        """Until it is full again."""
        return self.wait_s(self.per_minute)

    def wait_s(self, level: float) -> float:
        """Until so many are there; 0 where they are."""
        return max(0.0, level - self._now()) * MINUTE_S / self.per_minute

    def _now(self) -> float:
        now_s = self._clock()
        self._level = min(self.per_minute, self._level + (now_s - self._at_s) * self.per_minute / MINUTE_S)
        self._at_s = now_s
        return self._level


class LimitError(RateLimitError):
    """A key's limit is reached."""


class KeyUsage:
    """What one key has used.

    Args:
        key: whose.
        metrics: where its use is counted.
        clock: in seconds.
    """

    def __init__(self, key: Key, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.name = key.name
        self._key = key
        self._metrics = metrics
        self._clock = clock
        self._num_running = 0
        self._requests = _resized(None, key.requests_per_minute, clock)
        self._tokens = _resized(None, key.tokens_per_minute, clock)

    def renew(self, key: Key) -> None:
        """Take over the limits of the key as the file has it now."""
        if key == self._key:
            return
        self._key = key
        self._requests = _resized(self._requests, key.requests_per_minute, self._clock)
        self._tokens = _resized(self._tokens, key.tokens_per_minute, self._clock)

    def enter(self) -> None:
        """Let a request in.

        Raises:
            LimitError: a limit is reached; nothing was taken then.
        """
        most = self._key.concurrent_requests
        if most is not None and self._num_running >= most:
            raise self._refusal("concurrent_requests", f"{most} requests at the same time", CONCURRENCY_RETRY_S)
        for limit, bucket in (("requests_per_minute", self._requests), ("tokens_per_minute", self._tokens)):
            if bucket is not None and (wait_s := bucket.wait_s(1)) > 0:
                raise self._refusal(limit, f"{bucket.per_minute} {limit.partition('_')[0]} a minute", wait_s)
        if self._requests is not None:
            self._requests.take(1)
        self._num_running += 1

    def leave(self) -> None:
        """The request that was let in has ended."""
        self._num_running -= 1

    def charge(self, num_tokens: int, kind: str) -> None:
        """Tokens were used; `kind` is prompt or generation."""
        self._metrics.key_tokens.labels(self.name, kind).inc(num_tokens)
        if self._tokens is not None:
            self._tokens.take(num_tokens)

    def headers(self) -> dict[str, str]:
        """The headers that tell a client where it stands, as OpenAI names them; of the limits there are."""
        told = {}
        for name, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket is not None:
                told[f"x-ratelimit-limit-{name}"] = str(bucket.per_minute)
                told[f"x-ratelimit-remaining-{name}"] = str(bucket.remaining)
                told[f"x-ratelimit-reset-{name}"] = duration(bucket.reset_s)
        return told

    def _refusal(self, limit: str, text: str, wait_s: float) -> LimitError:
        self._metrics.key_refusals.labels(self.name, limit).inc()
        retry_after_s = max(1, math.ceil(wait_s))
        return LimitError(
            f"The key {self.name!r} has reached its limit of {text}. Try again in {retry_after_s} s.",
            retry_after_s=retry_after_s,
        )


class Limits:
    """Middleware that holds each key to its limits; stands inside of `AuthenticationMiddleware`, which names the key.

    `scope["state"]["account"]` is the key's account from here on.

    Args:
        app: the application inside.
        metrics: where use is counted.
        clock: in seconds.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
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


def key_usage_of(request: Request) -> KeyUsage | None:
    """The account a request is charged to; None where it came without a key."""
    account: KeyUsage | None = getattr(request.state, "account", None)
    return account


def duration(seconds: float) -> str:
    """A time as the `x-ratelimit-reset-*` headers write it: `17ms`, `8.64s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < MINUTE_S:
        return f"{math.ceil(seconds * 100) / 100:g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s"


def _resized(bucket: Bucket | None, per_minute: int | None, clock: Callable[[], float]) -> Bucket | None:
    if per_minute is None:
        return None
    if bucket is None:
        return Bucket(per_minute, clock)
    bucket.resize(per_minute)
    return bucket
