"""The engine's client on a real host process that follows a script, without vLLM."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from model_executor.client import standby
from model_executor.client.engine_client import EngineClient
from model_executor.client.engine_pool import EnginePool
from model_executor.engine import Engine, EngineSettings, EngineState, EngineStats, Prompt, SamplingParams
from tests.support.waiting import until

GOOD = Prompt([100])


@asynccontextmanager
async def running(
    model: str, *, ready: bool = True, max_num_seqs: int = 4, start_timeout_s: float = 60, warm_standby: bool = False
) -> AsyncIterator[EngineClient]:
    settings = EngineSettings(
        max_model_len=64,
        max_num_seqs=max_num_seqs,
        max_num_waiting=2,
        start_timeout_s=start_timeout_s,
        warm_standby=warm_standby,
    )
    client = EngineClient(Path(model), settings, module="tests.support.scripted_host")
    assert client.state is EngineState.LOADING
    await client.start()
    try:
        if ready:
            await until(lambda: client.state is EngineState.READY)
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def running_pool(
    model: str, replicas: int, *, ready: bool = True, max_num_seqs: int = 4, warm_standby: bool = False
) -> AsyncIterator[EnginePool]:
    """Several engines; ready are all of them."""
    settings = EngineSettings(
        max_model_len=64, max_num_seqs=max_num_seqs, max_num_waiting=2, replicas=replicas, warm_standby=warm_standby
    )
    pool = EnginePool(Path(model), settings, module="tests.support.scripted_host")
    await pool.start()
    try:
        if ready:
            await until(lambda: all(client.state is EngineState.READY for client in pool.clients))
        yield pool
    finally:
        await pool.close()


async def ask(client: Engine, prompt: Prompt = GOOD, num_tokens: int = 5, name: str = "r") -> str:
    limits = SamplingParams(max_tokens=num_tokens)
    return "".join([delta.text async for delta in client.generate(name, prompt, limits)])


async def until_stats(client: Engine, condition: Callable[[EngineStats], bool]) -> None:
    """Wait for a reading."""
    async with asyncio.timeout(10):
        while not condition(await client.stats()):
            await asyncio.sleep(0.01)


async def serve_for_ever() -> None:
    """What a server does for its engine; run in a process of its own."""
    standby.STANDBY_DELAY_S = 0
    async with running("fine", warm_standby=True):
        await asyncio.Event().wait()
