"""Rate limits of an API key: requests and tokens per minute, as token buckets, and concurrent requests.

Each bucket holds one minute's worth and fills steadily. A request takes one from the first bucket; tokens are taken
from the second one as they are computed, since the length of an answer is not known in advance. So a request is
accepted while any token is left, and following requests wait until its overdraft is refilled.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from starlette.requests import Request

from server.auth.api_keys import Key
from server.core.errors import RateLimitError
from server.core.metrics import Metrics

MINUTE_S = 60.0
CONCURRENCY_RETRY_S = 1


class Bucket:
    """A token bucket that holds one minute's worth; full at first.

    Args:
        per_minute: the rate, and the capacity.
        clock: in seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._updated_at_s = clock()

    def resize(self, per_minute: int) -> None:
        """Change the rate; the used units stay used."""
        used = self.used
        self.per_minute = per_minute
        self._level = per_minute - used

    def take(self, amount: float) -> None:
        """Use units; the level may fall below zero."""
        self._level = self._now() - amount

    @property
    def used(self) -> float:
        """Units that are missing from a full bucket."""
        return self.per_minute - self._now()

    def wait_s(self, level: float) -> float:
        """Seconds until the bucket has reached `level`; 0 if it has."""
        return max(0.0, level - self._now()) * MINUTE_S / self.per_minute

    def _now(self) -> float:
        now_s = self._clock()
        elapsed_s = now_s - self._updated_at_s
        self._level = min(self.per_minute, self._level + elapsed_s * self.per_minute / MINUTE_S)
        self._updated_at_s = now_s
        return self._level


class KeyLimitError(RateLimitError):
    """A key has reached one of its limits."""


class Refusal(NamedTuple):
    """A limit that a key has reached."""

    limit: Literal["requests_per_minute", "tokens_per_minute", "concurrent_requests"]
    wait_s: float
    """Until another try may succeed."""


class KeyCounts(Protocol):
    """What one key has used: in this process, or shared by several servers."""

    async def enter(self, key: Key) -> Refusal | None:
        """Count the start of a request, unless the key has reached a limit.

        Args:
            key: with its current limits.

        Returns:
            The limit that was reached; None: the request is counted.

        Raises:
            UnavailableError: nobody can tell at the moment.
        """

    async def leave(self) -> None:
        """Count the end of a request."""

    def take_tokens(self, num_tokens: int) -> None:
        """Count used tokens, which may exceed the limit."""

    def used(self) -> tuple[float, float]:
        """Requests and tokens of the current minute, as far as this process knows."""


class LocalCounts:
    """Counts in this process.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._num_running = 0
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None

    async def enter(self, key: Key) -> Refusal | None:
        """As `KeyCounts.enter`."""
        self._requests = _resized(self._requests, key.requests_per_minute, self._clock)
        self._tokens = _resized(self._tokens, key.tokens_per_minute, self._clock)
        if key.concurrent_requests is not None and self._num_running >= key.concurrent_requests:
            return Refusal("concurrent_requests", CONCURRENCY_RETRY_S)
        if self._requests is not None and (wait_s := self._requests.wait_s(1)) > 0:
            return Refusal("requests_per_minute", wait_s)
        if self._tokens is not None and (wait_s := self._tokens.wait_s(1)) > 0:
            return Refusal("tokens_per_minute", wait_s)
        if self._requests is not None:
            self._requests.take(1)
        self._num_running += 1
        return None

    async def leave(self) -> None:
        """As `KeyCounts.leave`."""
        self._num_running -= 1

    def take_tokens(self, num_tokens: int) -> None:
        """As `KeyCounts.take_tokens`."""
        if self._tokens is not None:
            self._tokens.take(num_tokens)

    def used(self) -> tuple[float, float]:
        """As `KeyCounts.used`."""
        return _used(self._requests), _used(self._tokens)


class KeyUsage:
    """The requests and tokens that one key has used.

    Args:
        key: the key.
        metrics: counts the usage.
        counts: keeps what counts against the limits.
    """

    def __init__(self, key: Key, metrics: Metrics, counts: KeyCounts) -> None:
        self.name = key.name
        self._key = key
        self._metrics = metrics
        self._counts = counts

    def update_key(self, key: Key) -> None:
        """Adopt the key's current limits, after the key file has changed."""
        self._key = key

    async def enter(self) -> None:
        """Count the start of a request.

        Raises:
            KeyLimitError: the key has reached a limit; the request is not counted.
            UnavailableError: nobody can tell at the moment.
        """
        refusal = await self._counts.enter(self._key)
        if refusal is not None:
            limit = getattr(self._key, refusal.limit)
            per = "at the same time" if refusal.limit == "concurrent_requests" else "per minute"
            what = "tokens" if refusal.limit == "tokens_per_minute" else "requests"
            raise self._error(refusal, f"{limit} {what} {per}")

    async def leave(self) -> None:
        """Count the end of a request."""
        await self._counts.leave()

    def charge(self, num_tokens: int, kind: str) -> None:
        """Count used tokens; `kind` is `prompt` or `generation`."""
        self._metrics.key_tokens.labels(self.name, kind).inc(num_tokens)
        if self._key.tokens_per_minute is not None:
            self._counts.take_tokens(num_tokens)

    def headers(self) -> dict[str, str]:
        """OpenAI's rate-limit headers, for the limits that the key has."""
        headers = {}
        limits = (("requests", self._key.requests_per_minute), ("tokens", self._key.tokens_per_minute))
        for (name, limit), used in zip(limits, self._counts.used(), strict=True):
            if limit is not None:
                headers[f"x-ratelimit-limit-{name}"] = str(limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(limit - used)))
                headers[f"x-ratelimit-reset-{name}"] = format_duration(used * MINUTE_S / limit)
        return headers

    def _error(self, refusal: Refusal, text: str) -> KeyLimitError:
        self._metrics.key_refusals.labels(self.name, refusal.limit).inc()
        retry_after_s = max(1, math.ceil(refusal.wait_s))
        return KeyLimitError(
            f"The key {self.name!r} has reached its limit of {text}. Try again in {retry_after_s} s.",
            retry_after_s=retry_after_s,
        )


def key_usage_of(request: Request) -> KeyUsage | None:
    """The usage that a request is charged to; None if it has no key."""
    usage: KeyUsage | None = getattr(request.state, "key_usage", None)
    return usage


def format_duration(seconds: float) -> str:
    """A duration in the format of the `x-ratelimit-reset-*` headers: `17ms`, `8.64s`, `6m0s`."""
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
    if bucket.per_minute != per_minute:
        bucket.resize(per_minute)
    return bucket


def _used(bucket: Bucket | None) -> float:
    return 0.0 if bucket is None else bucket.used
