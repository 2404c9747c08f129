"""Total time spent in each stage of preparing images and videos, for the metrics."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

from server.core.metrics import MediaStage, StageLoad


class StageTimes:
    """Sums by stage; used in one event loop's thread only."""

    def __init__(self) -> None:
        """All at zero."""
        self.load: dict[MediaStage, StageLoad] = {stage: StageLoad() for stage in get_args(MediaStage)}
        """A reading."""

    def add(self, stage: MediaStage, duration_s: float) -> None:
        """Count one passage."""
        before = self.load[stage]
        self.load[stage] = StageLoad(before.num + 1, before.total_s + duration_s)

    @contextmanager
    def timed(self, stage: MediaStage) -> Iterator[None]:
        """Count a passage from entry to exit."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started_s)
