"""Collects vLLM's statistics after each step and sums them up for `EngineStats`."""

from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from model_executor.engine import EngineStats


class StatsCollector(StatLoggerBase):
    """A vLLM stat logger that keeps the values instead of logging them."""

    def __init__(self, *_: Any) -> None:
        """Start at zero; vLLM passes its configuration, which is not needed."""
        self._current: dict[str, float] = {}
        self._counters = dict.fromkeys(
            (
                "num_steps",
                "num_preemptions",
                "prompt_tokens",
                "generation_tokens",
                "prefix_cache_queries",
                "prefix_cache_hits",
                "encoder_cache_queries",
                "encoder_cache_hits",
            ),
            0,
        )

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        """Called by vLLM after each step; either argument may be None."""
        self._counters["num_steps"] += 1
        if scheduler_stats is not None:
            self._current = {
                "num_running": scheduler_stats.num_running_reqs,
                "num_waiting": scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs,
                "kv_cache_usage": scheduler_stats.kv_cache_usage,
            }
            self._counters["prefix_cache_queries"] += scheduler_stats.prefix_cache_stats.queries
            self._counters["prefix_cache_hits"] += scheduler_stats.prefix_cache_stats.hits
        if iteration_stats is not None:
            self._counters["num_preemptions"] += iteration_stats.num_preempted_reqs
            self._counters["prompt_tokens"] += iteration_stats.num_prompt_tokens
            self._counters["generation_tokens"] += iteration_stats.num_generation_tokens

    @property
    def num_steps(self) -> int:
        """Steps computed."""
        return self._counters["num_steps"]

    def log_engine_initialized(self) -> None:
        """Called by vLLM once; logs nothing."""

    def count_media(self, num_items: int, num_encoded: int) -> None:
        """Count the media items of an answered request, and how many of them had to be encoded."""
        self._counters["encoder_cache_queries"] += num_items
        self._counters["encoder_cache_hits"] += num_items - num_encoded

    def stats(self) -> EngineStats:
        """The current values."""
        return EngineStats(**self._current, **self._counters)  # type: ignore[arg-type]
