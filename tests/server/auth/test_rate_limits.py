"""What a key may ask: rates, tokens, concurrency, the headers that tell, and what is counted."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI

from server.auth.api_keys import CHECK_INTERVAL_S, Key, hash_key
from server.auth.rate_limits import Bucket, KeyLimitError, KeyUsage, LocalCounts, format_duration
from server.core.metrics import Metrics
from tests.support.clock import Clock
from tests.support.error_body import check_error
from tests.support.fakes import MODEL, FakeEngine, say
from tests.support.keys import entry, write
from tests.support.waiting import until
from tests.support.world import OpenWorld, ServerFixture, Unread

LIMIT_HEADERS = {
    f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")
}

METRICS = Metrics()


def account(clock: Clock, **limits: Any) -> KeyUsage:
    return KeyUsage(Key(name="alice", sha256=hash_key("a"), **limits), METRICS, LocalCounts(clock))


async def admitted(entrant: KeyUsage) -> bool:
    try:
        await entrant.enter()
    except KeyLimitError:
        return False
    await entrant.leave()
    return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0161, "17ms"), (1, "1s"), (8.64, "8.64s"), (59.5, "59.5s"), (60, "1m0s"), (359.2, "6m0s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


async def test_a_minutes_requests_may_come_at_once_and_then_steadily() -> None:
    clock = Clock()
    alice = account(clock, requests_per_minute=6)
    assert [await admitted(alice) for _ in range(8)] == [True] * 6 + [False] * 2
    clock.now_s = 10
    assert [await admitted(alice) for _ in range(2)] == [True, False]
    clock.now_s = 1000
    assert [await admitted(alice) for _ in range(7)] == [True] * 6 + [False]


@settings(deadline=None)
@given(
    per_minute=st.integers(1, 100),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(0, 5)), max_size=20),
)
async def test_no_minute_lets_through_more_than_twice_the_rate(per_minute: int, steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    alice = account(clock, requests_per_minute=per_minute)
    times: list[float] = []
    for pause_s, tries in steps:
        clock.now_s += pause_s
        times += [clock.now_s for _ in range(tries) if await admitted(alice)]
    for start in times:
        assert sum(start <= at < start + 60 for at in times) <= 2 * per_minute


async def test_the_headers_tell_where_a_client_stands() -> None:
    clock = Clock()
    alice = account(clock, requests_per_minute=60, tokens_per_minute=600)
    await alice.enter()
    alice.charge(100, "prompt")
    assert alice.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "500",
        "x-ratelimit-reset-tokens": "10s",
    }
    assert account(clock).headers() == {}


async def test_tokens_over_the_limit_are_owed() -> None:
    clock = Clock()
    alice = account(clock, tokens_per_minute=60)
    await alice.enter()
    alice.charge(90, "generation")
    assert alice.headers()["x-ratelimit-remaining-tokens"] == "0"
    with pytest.raises(KeyLimitError, match="60 tokens per minute") as caught:
        await alice.enter()
    assert caught.value.retry_after_s == 31
    clock.now_s = 30.5
    assert not await admitted(alice)
    clock.now_s = 31
    assert await admitted(alice)


async def test_a_refusal_costs_nothing() -> None:
    alice = account(Clock(), requests_per_minute=5, concurrent_requests=1)
    await alice.enter()
    assert not await admitted(alice)
    assert alice.headers()["x-ratelimit-remaining-requests"] == "4"


def test_new_limits_keep_what_was_used() -> None:
    clock = Clock()
    bucket = Bucket(10, clock)
    bucket.take(4)
    bucket.resize(5)
    assert bucket.used == 4
    bucket.resize(20)
    assert bucket.used == 4


WATCHER = {"Authorization": "Bearer watchers"}


@asynccontextmanager
async def limited(
    open_world: OpenWorld,
    folder: Path,
    *,
    engine: FakeEngine | None = None,
    live: bool = False,
    clock: Callable[[], float] = time.monotonic,
    **limits: int,
) -> AsyncIterator[ServerFixture]:
    """A world whose client has alice's key, with these limits; bob's has none."""
    file = folder / "keys.toml"
    write(file, entry("alice", "alices", **limits), entry("bob", "bobs"))
    async with open_world(api_keys_file=file, metrics_key="watchers", engine=engine, live=live, clock=clock) as world:
        world.client.headers["authorization"] = "Bearer alices"
        yield world


def told(response: httpx.Response) -> set[str]:
    return {name for name in response.headers if name.startswith("x-ratelimit")}


async def test_the_request_too_many_is_refused_with_the_time_to_wait(open_world: OpenWorld, tmp_path: Path) -> None:
    async with limited(open_world, tmp_path, requests_per_minute=2) as world:
        first, second, third = [await world.ask() for _ in range(3)]
        others = await world.client.get("/v1/models")
        bobs = await world.client.post(
            "/v1/chat/completions", json=world.body(), headers={"authorization": "Bearer bobs"}
        )
    assert (first.status_code, second.status_code) == (200, 200)
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in (first, second, third)] == ["1", "0", "0"]
    assert "'alice'" in check_error(third, 429, code="rate_limit_exceeded")
    assert 1 <= int(third.headers["retry-after"]) <= 30
    assert len(world.engine.prompts) == 3
    assert others.status_code == 200 and bobs.status_code == 200
    assert not told(bobs)


async def test_the_refusal_comes_before_the_body_is_read(open_world: OpenWorld, tmp_path: Path) -> None:
    async with limited(open_world, tmp_path, requests_per_minute=1) as world:
        await world.ask()
        response = await world.client.post("/v1/chat/completions", content=Unread())
    check_error(response, 429, code="rate_limit_exceeded")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_of_prompts_and_answers_count(
    open_world: OpenWorld, tmp_path: Path, path: str, stream: bool
) -> None:
    async with limited(open_world, tmp_path, tokens_per_minute=5) as world:
        body: dict[str, Any] = {"model": MODEL, "stream": stream}
        body |= (
            {"prompt": "One two three four five six seven eight"}
            if path == "/v1/completions"
            else {"messages": world.body()["messages"]}
        )
        first = await world.client.post(path, json=body)
        second = await world.client.post(path, json=body)
        metrics = (await world.client.get("/metrics", headers=WATCHER)).text
        num_prompt_tokens = len(world.engine.prompts[0].token_ids)
    assert first.status_code == 200 and first.headers["x-ratelimit-remaining-tokens"] == "0"
    assert "tokens per minute" in check_error(second, 429, code="rate_limit_exceeded")
    assert f'tessera_key_tokens_total{{key="alice",kind="prompt"}} {num_prompt_tokens}.0' in metrics
    assert 'tessera_key_tokens_total{key="alice",kind="generation"} 3.0' in metrics
    assert 'tessera_key_refusals_total{key="alice",limit="tokens_per_minute"} 1.0' in metrics


async def test_errors_carry_the_headers_and_cost_no_tokens(open_world: OpenWorld, tmp_path: Path) -> None:
    async with limited(open_world, tmp_path, requests_per_minute=9, tokens_per_minute=9) as world:
        response = await world.ask(temperature=7)
    check_error(response, 400, param="temperature", code="invalid_value")
    assert told(response) == LIMIT_HEADERS
    assert response.headers["x-ratelimit-remaining-tokens"] == "9"


async def test_requests_at_the_same_time_are_limited_and_places_come_back(
    open_world: OpenWorld, tmp_path: Path
) -> None:
    go = asyncio.Event()
    engine = FakeEngine(script=lambda *_: [go, *say("done")])
    async with limited(open_world, tmp_path, engine=engine, concurrent_requests=2) as world:
        running = [asyncio.create_task(world.ask(stream=stream)) for stream in (False, True)]
        await until(lambda: len(engine.running) == 2)
        refused = await world.ask()
        go.set()
        assert [(await task).status_code for task in running] == [200, 200]
        assert (await world.ask()).status_code == 200
    assert "2 requests at the same time" in check_error(refused, 429, code="rate_limit_exceeded")


async def test_a_client_that_goes_away_gives_its_place_back(open_world: OpenWorld, tmp_path: Path) -> None:
    engine = FakeEngine(script=lambda *_: [*say("a"), asyncio.Event()])
    async with limited(open_world, tmp_path, engine=engine, live=True, concurrent_requests=1) as world:

        async def opens() -> bool:
            async with world.client.stream("POST", "/v1/chat/completions", json=world.body(stream=True)) as response:
                return response.status_code == 200

        assert await opens()
        async with asyncio.timeout(60):
            while not await opens():
                await asyncio.sleep(0.05)


async def test_the_openai_client_sees_a_rate_limit_error(open_world: OpenWorld, tmp_path: Path) -> None:
    async with limited(open_world, tmp_path, live=True, requests_per_minute=1) as world:
        async with AsyncOpenAI(base_url=f"{world.url}/v1", api_key="alices", max_retries=0) as client:
            answer = await client.completions.with_raw_response.create(model=MODEL, prompt="Once")
            assert answer.headers["x-ratelimit-limit-requests"] == "1"
            with pytest.raises(openai.RateLimitError) as caught:
                await client.completions.create(model=MODEL, prompt="Once")
    assert caught.value.code == "rate_limit_exceeded"


async def test_use_is_counted_by_the_keys_name(
    open_world: OpenWorld, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "tessera.access"):
        async with limited(open_world, tmp_path) as world:
            await world.ask()
            await world.ask(temperature=7)
            metrics = (await world.client.get("/metrics", headers=WATCHER)).text
    assert 'tessera_key_requests_total{key="alice",status="2xx"} 1.0' in metrics
    assert 'tessera_key_requests_total{key="alice",status="4xx"} 1.0' in metrics
    assert "alices" not in metrics and hash_key("alices") not in metrics
    lines = [record.__dict__["fields"] for record in caplog.records if record.name == "tessera.access"]
    assert {line["key"] for line in lines if line["path"] != "/metrics"} == {"alice"}


async def test_limits_of_a_changed_file_hold_at_once(open_world: OpenWorld, tmp_path: Path) -> None:
    clock = Clock()
    async with limited(open_world, tmp_path, requests_per_minute=1, clock=clock) as world:
        await world.ask()
        check_error(await world.ask(), 429, code="rate_limit_exceeded")
        write(tmp_path / "keys.toml", entry("alice", "alices", requests_per_minute=100), entry("carol", "carols"))
        clock.now_s += CHECK_INTERVAL_S
        answer = await world.ask()
        bobs = await world.client.get("/v1/models", headers={"authorization": "Bearer bobs"})
    assert answer.status_code == 200 and answer.headers["x-ratelimit-remaining-requests"] == "98"
    check_error(bobs, 401, code="invalid_api_key")
