"""How fast an answer comes, measured as it passes."""

import time
from collections.abc import AsyncGenerator, AsyncIterator

from model_executor.engine import Delta
from server.core.metrics import Metrics


async def timed(deltas: AsyncIterator[Delta], metrics: Metrics, started_s: float) -> AsyncGenerator[Delta, None]:
    """The same deltas; time to the first token, between tokens and to the last one are observed.

    Args:
        deltas: of one engine request.
        metrics: where to observe.
        started_s: when the client's request began, on the clock of `time.perf_counter`.
    """
    last_s: dict[int, float] = {}
    async for delta in deltas:
        now_s = time.perf_counter()
        if not last_s:
            metrics.first_token_s.observe(now_s - started_s)
        elif delta.index in last_s and delta.token_ids:
            metrics.inter_token_s.observe((now_s - last_s[delta.index]) / len(delta.token_ids))
        last_s[delta.index] = now_s
        yield delta
    metrics.answer_s.observe(time.perf_counter() - started_s)
