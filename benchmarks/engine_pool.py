"""Two engines of one thread against one engine of two: answer tokens per second of the bundled model, in turns.

python -m benchmarks.engine_pool [--rounds 3] [--requests 64] [--concurrency 16] [--tokens 64]
"""

import argparse
import asyncio
import random
import secrets
import statistics
import time
from contextlib import AsyncExitStack

from model_executor.checkpoint.config import BUNDLED_MODEL, resolve_checkpoint
from model_executor.client.engine_pool import EnginePool
from model_executor.engine import EngineSettings, EngineState, Prompt, SamplingParams

LAYOUTS = {"one engine, two threads": (1, 2), "two engines, one thread each": (2, 1)}
"""Engines, and threads of each."""
PROMPT_TOKENS = 200


async def measure(pool: EnginePool, options: argparse.Namespace) -> float:
    """Answer tokens per second of one round; every prompt is new."""
    waiting = [[random.randrange(300, 1000) for _ in range(PROMPT_TOKENS)] for _ in range(options.requests)]
    params = SamplingParams(max_tokens=options.tokens, temperature=0, ignore_eos=True)
    num_tokens = 0

    async def work() -> None:
        nonlocal num_tokens
        while waiting:
            prompt = Prompt(waiting.pop())
            async for delta in pool.generate(secrets.token_hex(8), prompt, params):
                num_tokens += len(delta.token_ids)

    began_s = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(options.concurrency)))
    return num_tokens / (time.perf_counter() - began_s)


async def run(options: argparse.Namespace) -> None:
    """Start both layouts and let them take turns."""
    model_dir = resolve_checkpoint(BUNDLED_MODEL)
    async with AsyncExitStack() as stack:
        pools = {}
        for name, (replicas, num_threads) in LAYOUTS.items():
            settings = EngineSettings(
                replicas=replicas,
                num_threads=num_threads,
                kv_cache_bytes=256 << 20,
                max_num_seqs=options.concurrency,
                warm_standby=False,
            )
            pools[name] = pool = EnginePool(model_dir, settings)
            await pool.start()
            stack.push_async_callback(pool.close)
        while any(client.state is not EngineState.READY for pool in pools.values() for client in pool.clients):
            await asyncio.sleep(0.1)
        rates: dict[str, list[float]] = {name: [] for name in pools}
        for _ in range(options.rounds + 1):
            for name, pool in pools.items():
                rates[name].append(await measure(pool, options))
        for name, values in rates.items():
            values = values[1:]  # the first one warms up
            print(f"{name}: {statistics.median(values):.0f} answer tokens/s ({min(values):.0f} to {max(values):.0f})")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rounds", 3), ("requests", 64), ("concurrency", 16), ("tokens", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
