"""Measures how fast an answer comes: time to the first token, between tokens, and to the last one."""

import time

from model_executor.engine import Delta
from server.core.metrics import Metrics


class LatencyObserver:
    """Watches the deltas of one request.

    Args:
        metrics: where to observe.
        started_s: when the client's request began, on the clock of `time.perf_counter`.
    """

    def __init__(self, metrics: Metrics, started_s: float) -> None:
        """Nothing has come yet."""
        self._metrics = metrics
        self._started_s = started_s
        self._last_s: dict[tuple[int, int], float] = {}

    def observe(self, prompt: int, delta: Delta) -> None:
        """A delta has come; `prompt` says of which of the request's prompts."""
        now_s = time.perf_counter()
        output = (prompt, delta.index)
        if not self._last_s:
            self._metrics.first_token_s.observe(now_s - self._started_s)
        elif output in self._last_s and delta.token_ids:
            self._metrics.inter_token_s.observe((now_s - self._last_s[output]) / len(delta.token_ids))
        self._last_s[output] = now_s

    def end(self) -> None:
        """The last delta has come."""
        self._metrics.answer_s.observe(time.perf_counter() - self._started_s)
