"""Several engines as one, on real processes without vLLM: placement, losses, one standby, rolling restart, sums."""

import asyncio
import os
import signal

import pytest

from model_executor.client import standby
from model_executor.client.engine_client import EngineClient
from model_executor.client.engine_pool import EnginePool
from model_executor.client.placement import choose, placement_key
from model_executor.client.pool_stats import Reading
from model_executor.engine import (
    EngineBusyError,
    EngineState,
    EngineStats,
    EngineUnavailableError,
    Prompt,
    SamplingParams,
)
from tests.support.scripted_engine import ask, running_pool, until_stats
from tests.support.waiting import until

pytestmark = pytest.mark.slow

POISON, SLOW = 4, 5
LONG = SamplingParams(max_tokens=1_000_000)


def for_engine(number: int, first: int = 100, of: int = 2) -> Prompt:
    """A prompt whose engine, among idle ones, is the one of that number."""
    prompts = (Prompt([first, salt]) for salt in range(1000))
    return next(prompt for prompt in prompts if choose(placement_key(prompt), dict.fromkeys(range(of), 0)) == number)


def kill(client: EngineClient) -> None:
    assert client.process_id is not None
    os.kill(client.process_id, signal.SIGKILL)


async def reaches(client: EngineClient, state: EngineState) -> None:
    await until(lambda: client.state is state)


async def generated(pool: EnginePool) -> list[int]:
    return [replica.stats.generation_tokens for replica in (await pool.stats()).replicas]


async def test_the_same_prompt_meets_the_same_engine() -> None:
    async with running_pool("fine", 2) as pool:
        for _ in range(3):
            assert await ask(pool, for_engine(1)) == "0 1 2 3 4 "
        assert await generated(pool) == [0, 15]
        await ask(pool, for_engine(0), num_tokens=2)
        assert await generated(pool) == [2, 15]
        assert (await pool.stats()).generation_tokens == 17


async def test_requests_of_a_lost_engine_that_have_begun_nothing_are_answered_by_another() -> None:
    async with running_pool("fine", 2) as pool:
        slow = [asyncio.create_task(ask(pool, for_engine(0, SLOW), name=str(number))) for number in range(2)]
        await until_stats(pool, lambda stats: stats.replicas[0].stats.num_running == 2)
        begun = pool.generate("begun", for_engine(0), LONG)
        await anext(begun)
        kill(pool.clients[0])
        with pytest.raises(EngineUnavailableError):
            _ = [delta async for delta in begun]
        assert pool.state is EngineState.READY
        assert await asyncio.gather(*slow) == ["0 1 2 3 4 "] * 2
        assert await ask(pool, for_engine(0)) == "0 1 2 3 4 "  # its engine is away, and is not waited for
        await until(lambda: pool.clients[0].state is EngineState.READY)


async def test_a_request_that_kills_engines_does_not_meet_them_all() -> None:
    async with running_pool("fine", 3) as pool:
        with pytest.raises(EngineUnavailableError):
            await ask(pool, Prompt([POISON]))
        assert [client.state for client in pool.clients].count(EngineState.READY) == 1
        assert pool.state is EngineState.READY
        assert await ask(pool)


async def test_a_crowd_fills_every_engine_before_it_is_refused() -> None:
    async with running_pool("fine", 2, max_num_seqs=2) as pool:  # and two may wait, in each
        crowd = [pool.generate(str(number), for_engine(0), LONG) for number in range(8)]
        begun = [asyncio.create_task(anext(answer)) for answer in crowd]
        await until_stats(pool, lambda stats: stats.num_running == 4 and stats.num_waiting == 4)
        with pytest.raises(EngineBusyError):
            await ask(pool)
        for task in begun:
            task.cancel()
        await asyncio.wait(begun)
        for answer in crowd:
            await answer.aclose()
        assert await ask(pool)


async def test_one_standby_waits_for_whichever_engine_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "STANDBY_DELAY_S", 0)
    async with running_pool("fine", 2, warm_standby=True) as pool:
        for lost in pool.clients:
            await until_stats(pool, lambda stats: stats.num_standby == 1)
            others = {client.process_id for client in pool.clients}
            kill(lost)
            await reaches(lost, EngineState.RESTARTING)
            await reaches(lost, EngineState.READY)
            assert lost.process_id not in others
            assert await ask(pool)
        for lost in pool.clients:  # both at once: one takes the standby, one starts anew
            kill(lost)
        await until(lambda: pool.state is EngineState.RESTARTING)
        with pytest.raises(EngineUnavailableError):
            await ask(pool)
        await until(lambda: all(client.state is EngineState.READY for client in pool.clients))
        assert len({client.process_id for client in pool.clients}) == 2
        assert await ask(pool)


async def test_engines_are_replaced_one_after_another_without_a_refusal() -> None:
    async with running_pool("fine", 2) as pool:
        before = {client.process_id for client in pool.clients}
        restart = asyncio.create_task(pool.restart(drain_s=30))
        num_answers = 0
        while not restart.done():
            answers = await asyncio.gather(*(ask(pool, for_engine(number), name=str(number)) for number in range(2)))
            assert answers == ["0 1 2 3 4 "] * 2
            num_answers += 2
        await restart
        assert num_answers > 10
        assert not before & {client.process_id for client in pool.clients}
        assert (await pool.stats()).generation_tokens > 0


async def test_a_pool_fails_when_every_engine_has() -> None:
    async with running_pool("impossible", 2, ready=False) as pool:
        await until(lambda: pool.state is EngineState.FAILED)
        assert pool.failure == "the model is a fish"


async def test_sums_do_not_fall_when_an_engine_is_replaced() -> None:
    async with running_pool("fine", 2) as pool:
        await ask(pool, for_engine(0))
        await ask(pool, for_engine(1))
        assert (await pool.stats()).generation_tokens == 10
        kill(pool.clients[0])
        await until(lambda: pool.clients[0].state is EngineState.RESTARTING)
        stats = await pool.stats()
        assert stats.generation_tokens == 10 and stats.replicas[0].state is EngineState.RESTARTING
        await until(lambda: pool.clients[0].state is EngineState.READY)
        await ask(pool, for_engine(0))
        assert (await pool.stats()).generation_tokens == 15


def test_counters_go_on_when_a_process_starts_again_at_zero() -> None:
    reading = Reading()
    reading.update(EngineStats(num_running=3, prompt_tokens=100, num_steps=10))
    assert (reading.stats.prompt_tokens, reading.stats.num_running) == (100, 3)
    reading.update(EngineStats(num_running=1, prompt_tokens=5, num_steps=2))  # replaced between two readings
    assert (reading.stats.prompt_tokens, reading.stats.num_running) == (105, 1)
    reading.lose()
    assert (reading.stats.prompt_tokens, reading.stats.num_running) == (105, 0)
    reading.lose()
    assert reading.stats.prompt_tokens == 105
