"""Limits that hold across servers, on a real Redis: exact counts, debts, places of killed servers, outages."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from server.auth import shared_limits
from server.auth.api_keys import Key, hash_key
from server.auth.rate_limits import KeyLimitError, KeyUsage, LocalCounts
from server.auth.shared_limits import SharedLimits
from server.core.errors import UnavailableError
from server.core.metrics import Metrics
from server.core.shared_state import SharedState
from tests.support.clock import Clock
from tests.support.cluster import Part, redis_server

pytestmark = pytest.mark.cluster

METRICS = Metrics()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Part]:
    with redis_server(tmp_path) as part:
        yield part


@asynccontextmanager
async def server(redis: Part, *, fail_open: bool = False, password: str = "") -> AsyncIterator[SharedLimits]:
    """What one server has."""
    state = SharedState(SecretStr(f"redis://{password}127.0.0.1:{redis.port}/0"))
    limits = SharedLimits(state, fail_open=fail_open)
    async with limits.running():
        yield limits
    await state.close()


def alice(limits: SharedLimits, **of_key: Any) -> KeyUsage:
    return KeyUsage(Key(name="alice", sha256=hash_key("a"), **of_key), METRICS, limits.of_key("alice"))


async def enters(usage: KeyUsage) -> bool:
    try:
        await usage.enter()
    except KeyLimitError:
        return False
    return True


async def test_two_servers_let_through_what_one_key_may_ask(redis: Part) -> None:
    async with server(redis) as first, server(redis) as second:
        usages = [alice(limits, requests_per_minute=100) for limits in (first, second)]
        started_s = time.monotonic()
        tasks = [enters(usages[number % 2]) for number in range(600)]
        num_passed = sum(await asyncio.gather(*tasks))
        refilled = int((time.monotonic() - started_s) * 100 / 60)
        assert 100 <= num_passed <= 100 + refilled
        for usage in usages:
            assert usage.headers()["x-ratelimit-remaining-requests"] == "0"


async def test_places_are_shared_and_given_back(redis: Part) -> None:
    async with server(redis) as first, server(redis) as second:
        here, there = (alice(limits, concurrent_requests=2) for limits in (first, second))
        assert await enters(here) and await enters(there)
        with pytest.raises(KeyLimitError, match="2 requests at the same time"):
            await here.enter()
        await there.leave()
        async with asyncio.timeout(5):
            while not await enters(here):
                await asyncio.sleep(0.01)


async def test_places_of_a_killed_server_are_free_after_a_while_and_those_of_a_living_one_are_not(
    redis: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_limits, "LEASE_S", 1)
    monkeypatch.setattr(shared_limits, "RENEW_S", 0.2)
    state = SharedState(SecretStr(f"redis://127.0.0.1:{redis.port}/0"))
    killed = SharedLimits(state, fail_open=False)  # never gives a sign of life
    async with server(redis) as living:
        assert await enters(alice(killed, concurrent_requests=2))
        assert await enters(alice(living, concurrent_requests=2))
        probe = alice(living, concurrent_requests=2)
        assert not await enters(probe)
        await asyncio.sleep(2.5)
        assert await enters(probe)
        assert not await enters(probe)
    await state.close()


async def test_owed_tokens_are_those_of_one_server(redis: Part) -> None:
    """The same requests against the counts in a process, whose waits are checked elsewhere, are the oracle."""
    async with server(redis) as limits:
        clock = Clock()
        key = Key(name="alice", sha256=hash_key("a"), tokens_per_minute=60)
        oracle = KeyUsage(key, METRICS, LocalCounts(clock))
        waits = []
        for usage in (oracle, alice(limits, tokens_per_minute=60)):
            await usage.enter()
            usage.charge(90, "generation")
            await limits.flush()
            assert usage.headers()["x-ratelimit-remaining-tokens"] == "0"
            with pytest.raises(KeyLimitError, match="60 tokens per minute") as caught:
                await usage.enter()
            waits.append(caught.value.retry_after_s)
        assert waits[0] == waits[1] == 31


async def test_new_limits_keep_what_was_used(redis: Part) -> None:
    async with server(redis) as limits:
        usage = alice(limits, requests_per_minute=10)
        for _ in range(10):
            await usage.enter()
        usage.update_key(Key(name="alice", sha256=hash_key("a"), requests_per_minute=12))
        assert [await enters(usage) for _ in range(3)] == [True, True, False]


async def test_keys_without_limits_need_no_state(redis: Part) -> None:
    async with server(redis) as limits:
        redis.kill()
        usage = alice(limits)
        await usage.enter()
        usage.charge(5, "prompt")
        await usage.leave()


@pytest.mark.parametrize("fail_open", [False, True])
async def test_an_outage_refuses_or_passes_as_set_and_what_was_used_meanwhile_counts(
    redis: Part, fail_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with server(redis, fail_open=fail_open) as limits:
        usage = alice(limits, requests_per_minute=2, tokens_per_minute=600)
        await usage.enter()
        redis.kill()
        if fail_open:
            for _ in range(5):
                await usage.enter()
        else:
            with pytest.raises(UnavailableError) as away:
                await usage.enter()
            assert (away.value.status, away.value.code) == (503, "state_unavailable")
        usage.charge(900, "generation")  # of a request that runs through the outage
        redis.start()
        await limits.flush()
        with pytest.raises(KeyLimitError, match="600 tokens per minute"):
            await usage.enter()
    assert [record.message for record in caplog.records if record.name == "tessera.state"] == [
        "the shared state (state_url) does not answer: ConnectionError",
        "the shared state answers again",
    ]


async def test_used_tokens_are_sent_before_the_server_ends(redis: Part) -> None:
    async with server(redis) as limits:
        usage = alice(limits, tokens_per_minute=60)
        await usage.enter()
        usage.charge(90, "generation")
    async with server(redis) as limits:
        assert not await enters(alice(limits, tokens_per_minute=60))


@pytest.mark.parametrize("pause_s", [0, 0.0003, 0.001])
async def test_a_canceled_request_occupies_no_place(redis: Part, pause_s: float) -> None:
    async with server(redis) as limits:
        usage = alice(limits, concurrent_requests=1)
        task = asyncio.create_task(usage.enter())
        await asyncio.sleep(pause_s)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            await usage.leave()
        async with asyncio.timeout(5):
            while not await enters(usage):
                await asyncio.sleep(0.01)


async def test_a_password_is_in_no_log_and_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(redis_server(tmp_path, "--requirepass", "right-secret"))
        limits = await stack.enter_async_context(server(redis, password="default:wrong-secret@"))
        with pytest.raises(UnavailableError) as refused:
            await alice(limits, requests_per_minute=1).enter()
        assert "secret" not in refused.value.message
    assert "secret" not in caplog.text
