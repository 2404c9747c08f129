"""Statistics of several engines: counters that go on when an engine starts again at 0, and sums. Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

from model_executor.engine import EngineStats, ReplicaStats

COUNTERS = (
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
    "prefix_cache_queries",
    "prefix_cache_hits",
    "encoder_cache_queries",
    "encoder_cache_hits",
    "num_steps",
)
GAUGES = ("num_running", "num_waiting")


class Reading:
    """What one engine has counted over the lives of all its processes.

    Otherwise a sum over engines would fall when one is replaced, which Prometheus takes for a restart of all.
    """

    def __init__(self) -> None:
        self.stats = EngineStats()
        self._before = EngineStats()
        """Counters of processes that are gone."""
        self._last = EngineStats()

    def update(self, now: EngineStats) -> None:
        """Take in the statistics of the process in service."""
        if now.num_steps < self._last.num_steps:
            self.lose()
        self._last = now
        self.stats = msgspec.structs.replace(now, **_sums(COUNTERS, (self._before, now)))

    def lose(self) -> None:
        """The process is gone; it runs nothing any more."""
        self._before = EngineStats(**_sums(COUNTERS, (self._before, self._last)))
        self._last = EngineStats()
        self.stats = self._before


def total(parts: Sequence[ReplicaStats], *, num_standby: int) -> EngineStats:
    """The sum of all engines, with their parts; the usage of the KV cache is the mean of those that have one."""
    usages = [part.stats.kv_cache_usage for part in parts if part.state == "ready"]
    return EngineStats(
        **_sums((*COUNTERS, *GAUGES), [part.stats for part in parts]),
        kv_cache_usage=sum(usages) / max(1, len(usages)),
        num_standby=num_standby,
        replicas=tuple(parts) if len(parts) > 1 else (),
    )


def _sums(names: Sequence[str], of: Sequence[EngineStats]) -> dict[str, Any]:
    return {name: sum(getattr(stats, name) for stats in of) for name in names}
