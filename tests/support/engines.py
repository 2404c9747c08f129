"""Real engines."""

import asyncio

from model_executor.client.engine_client import EngineClient
from model_executor.engine import EngineState

START_TIMEOUT_S = 240


async def ready(engine: EngineClient) -> None:
    """Wait until the engine can be asked."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while engine.state is not EngineState.READY:
            assert engine.state is not EngineState.FAILED, engine.failure
            await asyncio.sleep(0.05)
