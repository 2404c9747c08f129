"""Rate limits of an API key: requests and tokens per minute, as token buckets, and concurrent requests.

Each bucket holds one minute's worth and fills steadily. A request takes one from the first bucket; tokens are taken
from the second one as they are computed, since the length of an answer is not known in advance. So a request is
accepted while any token is left, and following requests wait until its overdraft is refilled.
"""

import math
from collections.abc import Callable

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
        used = self.per_minute - self._now()
        self.per_minute = per_minute
        self._level = per_minute - used

    def take(self, amount: float) -> None:
        """Use units; the level may fall below zero."""
        self._level = self._now() - amount

    @property
    def remaining(self) -> int:
        """Whole units left; not below zero."""
        return max(0, math.floor(self._now()))

    @property
    def reset_s(self) -> float:
        """Seconds until the bucket is full."""
        return self.wait_s(self.per_minute)

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


class KeyUsage:
    """The requests and tokens that one key has used.

    Args:
        key: the key.
        metrics: counts the usage.
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

    def update_key(self, key: Key) -> None:
        """Adopt the key's current limits, after the key file has changed."""
        if key == self._key:
            return
        self._key = key
        self._requests = _resized(self._requests, key.requests_per_minute, self._clock)
        self._tokens = _resized(self._tokens, key.tokens_per_minute, self._clock)

    def enter(self) -> None:
        """Count the start of a request.

        Raises:
            KeyLimitError: the key has reached a limit; the request is not counted.
        """
        limit = self._key.concurrent_requests
        if limit is not None and self._num_running >= limit:
            raise self._refusal("concurrent_requests", f"{limit} requests at the same time", CONCURRENCY_RETRY_S)
        for name, bucket in (("requests_per_minute", self._requests), ("tokens_per_minute", self._tokens)):
            if bucket is not None and (wait_s := bucket.wait_s(1)) > 0:
                raise self._refusal(name, f"{bucket.per_minute} {name.partition('_')[0]} per minute", wait_s)
        if self._requests is not None:
            self._requests.take(1)
        self._num_running += 1

    def leave(self) -> None:
        """Count the end of a request."""
        self._num_running -= 1

    def charge(self, num_tokens: int, kind: str) -> None:
        """Count used tokens; `kind` is `prompt` or `generation`."""
        self._metrics.key_tokens.labels(self.name, kind).inc(num_tokens)
        if self._tokens is not None:
            self._tokens.take(num_tokens)

    def headers(self) -> dict[str, str]:
        """OpenAI's rate-limit headers, for the limits that the key has."""
        headers = {}
        for name, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket is not None:
                headers[f"x-ratelimit-limit-{name}"] = str(bucket.per_minute)
                headers[f"x-ratelimit-remaining-{name}"] = str(bucket.remaining)
                headers[f"x-ratelimit-reset-{name}"] = format_duration(bucket.reset_s)
        return headers

    def _refusal(self, limit: str, text: str, wait_s: float) -> KeyLimitError:
        self._metrics.key_refusals.labels(self.name, limit).inc()
        retry_after_s = max(1, math.ceil(wait_s))
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
    bucket.resize(per_minute)
    return bucket
