"""Limits of keys that hold across several servers: the counts are in Redis or Valkey, changed by scripts there.

What a key has used of a minute's worth decays steadily, as in the token bucket of `rate_limits.py`. A running request
is an entry with an end, which its server puts off while the request runs, so that a server that is killed occupies no
place for longer than that. Used tokens are sent in batches; what could not be sent is sent later.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from server.auth.api_keys import Key
from server.auth.rate_limits import KeyCounts, Refusal
from server.core.concurrency import forever
from server.core.errors import UnavailableError
from server.core.shared_state import SharedState

FLUSH_S = 0.2
"""Between two batches of used tokens."""
LEASE_S = 30
"""How long a running request occupies its place without a sign of life from its server."""
RENEW_S = 10.0

_log = logging.getLogger("tessera.limits")

_COMMON = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local function used(key, per_minute)
  local stored = redis.call('HMGET', key, 'used', 'at')
  if not stored[1] then return 0 end
  return math.max(0, stored[1] - (now - stored[2]) * per_minute / 60)
end
local function keep(key, amount, per_minute)
  redis.call('HSET', key, 'used', string.format('%.9f', amount), 'at', string.format('%.6f', now))
  redis.call('EXPIRE', key, math.ceil(amount * 60 / per_minute) + 60)
end
"""
_ENTER = (
    _COMMON
    + """
local per_minute, tokens_per_minute, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local requests, tokens = 0, 0
if per_minute > 0 then requests = used(KEYS[1], per_minute) end
if tokens_per_minute > 0 then tokens = used(KEYS[2], tokens_per_minute) end
local limit, wait = '', 0
if most > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  if redis.call('ZCARD', KEYS[3]) >= most then limit, wait = 'concurrent_requests', 1 end
end
if limit == '' and per_minute > 0 and requests > per_minute - 1 then
  limit, wait = 'requests_per_minute', (requests - per_minute + 1) * 60 / per_minute
end
if limit == '' and tokens_per_minute > 0 and tokens > tokens_per_minute - 1 then
  limit, wait = 'tokens_per_minute', (tokens - tokens_per_minute + 1) * 60 / tokens_per_minute
end
if limit == '' then
  if per_minute > 0 then
    requests = requests + 1
    keep(KEYS[1], requests, per_minute)
  end
  if most > 0 then
    redis.call('ZADD', KEYS[3], now + ARGV[5], ARGV[4])
    redis.call('EXPIRE', KEYS[3], ARGV[5] * 2)
  end
end
return {limit, tostring(wait), tostring(requests), tostring(tokens)}
"""
)
"""KEYS: used requests, used tokens, running requests. ARGV: the limits (0: none), id and lease of the request."""
_TAKE = _COMMON + "keep(KEYS[1], used(KEYS[1], tonumber(ARGV[1])) + ARGV[2], tonumber(ARGV[1]))"
"""KEYS: used tokens. ARGV: tokens per minute, tokens to add."""
_RENEW = """
local time = redis.call('TIME')
for number = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', time[1] + ARGV[1], ARGV[number]) end
redis.call('EXPIRE', KEYS[1], ARGV[1] * 2)
"""
"""KEYS: running requests. ARGV: lease, ids."""


class SharedLimits:
    """The counts of every key, shared by all servers of one state.

    Args:
        state: where they are kept.
        fail_open: whether requests pass while the state does not answer.
    """

    def __init__(self, state: SharedState, *, fail_open: bool) -> None:
        self._state = state
        self._fail_open = fail_open
        self._enter = state.redis.register_script(_ENTER)
        self._take = state.redis.register_script(_TAKE)
        self._renew = state.redis.register_script(_RENEW)
        self._unsent: Counter[tuple[str, int]] = Counter()
        self._leases: dict[str, set[str]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def of_key(self, name: str) -> KeyCounts:
        """The counts of the key of that name."""
        return _SharedCounts(name, self)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send used tokens and signs of life in the meantime; on leaving, what is still to be sent."""
        tasks = [
            asyncio.create_task(forever(self._flush_always, "the sending of used tokens")),
            asyncio.create_task(forever(self._renew_always, "the renewal of running requests")),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            if self._leaving:
                await asyncio.wait(self._leaving)
            with contextlib.suppress(UnavailableError):
                await self.flush()

    async def enter(self, key: Key, request: str) -> tuple[Refusal | None, float, float]:
        """Count a request; returns the limit that was reached, if any, and the requests and tokens used."""
        limits = [key.requests_per_minute or 0, key.tokens_per_minute or 0, key.concurrent_requests or 0]
        try:
            with self._state.errors():
                reply: list[bytes] = await self._enter(
                    keys=[_name(key.name, part) for part in ("requests", "tokens", "running")],
                    args=[*limits, request, LEASE_S],
                )
        except UnavailableError:
            if not self._fail_open:
                raise
            return None, 0.0, 0.0
        limit, wait_s, requests, tokens = (part.decode() for part in reply)
        refusal = Refusal(limit, float(wait_s)) if limit else None  # type: ignore[arg-type]  # one of the script's three
        if refusal is None and key.concurrent_requests is not None:
            self._leases.setdefault(key.name, set()).add(request)
        return refusal, float(requests), float(tokens)

    def leave(self, name: str, request: str) -> None:
        """A request has ended; its place is given back soon."""
        self._leases.get(name, set()).discard(request)
        task = asyncio.create_task(self._give_back(name, request))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def take_tokens(self, name: str, per_minute: int, num_tokens: int) -> None:
        """Count used tokens soon."""
        self._unsent[name, per_minute] += num_tokens

    async def flush(self) -> None:
        """Send the used tokens.

        Raises:
            UnavailableError: they are kept, to be sent later.
        """
        for (name, per_minute), num_tokens in list(self._unsent.items()):
            with self._state.errors():
                await self._take(keys=[_name(name, "tokens")], args=[per_minute, num_tokens])
            self._unsent[name, per_minute] -= num_tokens
            if not self._unsent[name, per_minute]:
                del self._unsent[name, per_minute]

    async def _give_back(self, name: str, request: str) -> None:
        with contextlib.suppress(UnavailableError), self._state.errors():  # else the lease ends by itself
            await self._state.redis.zrem(_name(name, "running"), request)

    async def _flush_always(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            with contextlib.suppress(UnavailableError):
                await self.flush()

    async def _renew_always(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            for name, requests in list(self._leases.items()):
                args: list[Any] = [LEASE_S, *requests]
                with contextlib.suppress(UnavailableError), self._state.errors():
                    await self._renew(keys=[_name(name, "running")], args=args)
                if not requests:
                    del self._leases[name]


class _SharedCounts:
    """Implements `KeyCounts` for one key."""

    def __init__(self, name: str, limits: SharedLimits) -> None:
        self._name = name
        self._limits = limits
        self._tokens_per_minute = 0
        self._requests: list[str] = []
        """Ids of the running ones that hold a place; which of them ends first does not matter."""
        self._used = (0.0, 0.0)

    async def enter(self, key: Key) -> Refusal | None:
        """As `KeyCounts.enter`; a key without limits is not counted."""
        self._tokens_per_minute = key.tokens_per_minute or 0
        request = secrets.token_hex(8)
        refusal = None
        if key.requests_per_minute or key.tokens_per_minute or key.concurrent_requests:
            try:
                refusal, *used = await self._limits.enter(key, request)
            except asyncio.CancelledError:  # it may have been counted
                self._limits.leave(self._name, request)
                raise
            self._used = (used[0], used[1])
        if refusal is None:
            self._requests.append(request if key.concurrent_requests else "")
        return refusal

    async def leave(self) -> None:
        """As `KeyCounts.leave`."""
        if request := self._requests.pop():
            self._limits.leave(self._name, request)

    def take_tokens(self, num_tokens: int) -> None:
        """As `KeyCounts.take_tokens`."""
        self._used = (self._used[0], self._used[1] + num_tokens)
        if self._tokens_per_minute:
            self._limits.take_tokens(self._name, self._tokens_per_minute, num_tokens)

    def used(self) -> tuple[float, float]:
        """As `KeyCounts.used`; of the tokens, as of the last request."""
        return self._used


def _name(key: str, part: str) -> str:
    return f"tessera:limits:{{{key}}}:{part}"
