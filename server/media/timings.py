"""How long the stages of preparing media take, added up for the metrics."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal["fetch", "queue", "header", "decode"]
"""Bringing the bytes; waiting for a worker; reading what the header announces; decoding, resizing and cutting patches.
A worker is waited for twice, and what the cache has needs only the first stage."""


@dataclass(frozen=True, slots=True)
class StageLoad:
    """What one stage did since the start."""

    num: int = 0
    """How often it was passed, with or without success."""
    total_s: float = 0.0


class StageTimes:
    """Adds up; runs in one event loop's thread."""

    def __init__(self) -> None:
        """All at zero."""
        self.load: dict[Stage, StageLoad] = {stage: StageLoad() for stage in get_args(Stage)}
        """A reading."""

    def add(self, stage: Stage, duration_s: float) -> None:
        """Count one passage."""
        before = self.load[stage]
        self.load[stage] = StageLoad(before.num + 1, before.total_s + duration_s)

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Count a passage from entry to exit."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started_s)
