"""Total time spent in each stage of preparing images and videos, for the metrics."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal["fetch", "queue", "header", "decode"]
"""Fetching the bytes; waiting for a worker; reading the headers; decoding, resizing and cutting patches. Each image or
video waits for a worker twice; one that is in the cache has the first stage only."""


@dataclass(frozen=True, slots=True)
class StageLoad:
    """Passages through one stage since the server's start."""

    num: int = 0
    """How many, successful or not."""
    total_s: float = 0.0


class StageTimes:
    """Sums by stage; used in one event loop's thread only."""

    def __init__(self) -> None:
        """All at zero."""
        self.load: dict[Stage, StageLoad] = {stage: StageLoad() for stage in get_args(Stage)}
        """The sums so far."""

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
