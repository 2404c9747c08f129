"""Notices an engine that stands still: requests wait, and no step is finished.

A long step looks the same from outside, so the processor time of the engine's processes is looked at, too: a process
that was stopped, or whose threads wait for one another, uses none.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

STILL_S = 30.0
"""Without a step and without processor time for so long, the engine counts as lost."""
LEAST_CPU_S = 1.0
"""Processor time in STILL_S below which a process does nothing."""
STEP_TIMEOUT_S = 600.0
"""Longest step; after this the engine counts as lost whatever it does."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class StepWatch:
    """Checks at intervals whether the engine still makes steps.

    Args:
        num_steps: steps finished since the start.
        num_unfinished: requests the engine has and has not finished.
        cpu_s: processor time the engine has used, in seconds.
        clock: in seconds.
    """

    def __init__(
        self,
        num_steps: Callable[[], int],
        num_unfinished: Callable[[], int],
        cpu_s: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read_steps = num_steps
        self._read_unfinished = num_unfinished
        self._read_cpu_s = cpu_s
        self._clock = clock
        self._num_steps = -1
        self._since_s = clock()
        self._window_s = self._since_s
        self._cpu_s: float | None = None

    def is_stuck(self) -> bool:
        """Whether the engine should be given up."""
        now_s, num_steps = self._clock(), self._read_steps()
        if num_steps != self._num_steps or not self._read_unfinished():
            self._num_steps, self._since_s, self._window_s, self._cpu_s = num_steps, now_s, now_s, None
            return False
        if self._cpu_s is None:
            self._cpu_s = self._read_cpu_s()
        if now_s - self._since_s >= STEP_TIMEOUT_S:
            return True
        if now_s - self._window_s < STILL_S:
            return False
        used_s = self._read_cpu_s() - self._cpu_s
        self._window_s, self._cpu_s = now_s, self._cpu_s + used_s
        return used_s < LEAST_CPU_S


def engine_cpu_s() -> float:
    """Processor time, in seconds, that the processes started with `multiprocessing` have used, with all below them."""
    children = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
    return sum(map(_cpu_s, children))


def _cpu_s(process_id: int) -> float:
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()
        tasks = [task.read_text() for task in Path(f"/proc/{process_id}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    own_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return own_s + sum(_cpu_s(int(child)) for children in tasks for child in children.split())
