"""An engine that stands still is noticed; one that is busy, idle or slow is not."""

import multiprocessing
import os
import signal
import time

import pytest

from model_executor.engine_process.step_watch import LEAST_CPU_S, STEP_TIMEOUT_S, STILL_S, StepWatch, engine_cpu_s
from tests.support.clock import Clock


class World:
    """An engine whose facts are set by hand."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.num_steps, self.num_unfinished, self.cpu_s = 0, 1, 0.0
        self.watch = StepWatch(
            lambda: self.num_steps, lambda: self.num_unfinished, lambda: self.cpu_s, clock=self.clock
        )
        assert not self.watch.is_stuck()

    def stuck_after(self, most_s: float, *, cpu_per_s: float = 0, steps_every_s: float = 1e9) -> float | None:
        """When it is given up, looked at every half second; None where it is not."""
        for tick in range(1, int(most_s * 2) + 1):
            self.clock.now_s += 0.5
            self.cpu_s += cpu_per_s / 2
            self.num_steps = int(tick / 2 / steps_every_s)
            if self.watch.is_stuck():
                return self.clock.now_s
        return None


def test_no_step_and_no_processor_time_is_a_standstill() -> None:
    assert World().stuck_after(100) == STILL_S


def test_rare_steps_are_steps() -> None:
    assert World().stuck_after(1000, steps_every_s=STILL_S - 1) is None


def test_a_long_step_has_its_time() -> None:
    assert World().stuck_after(2000, cpu_per_s=2 * LEAST_CPU_S / STILL_S) == STEP_TIMEOUT_S


def test_a_long_step_that_comes_to_a_standstill_is_noticed() -> None:
    world = World()
    assert world.stuck_after(100, cpu_per_s=1) is None
    assert world.stuck_after(100) is not None


def test_without_requests_nothing_is_expected() -> None:
    world = World()
    world.num_unfinished = 0
    assert world.stuck_after(1000) is None
    world.num_unfinished = 1
    assert world.stuck_after(STILL_S - 1) is None


def _spin() -> None:
    while True:
        pass


@pytest.mark.slow
def test_processor_time_is_that_of_the_engines_processes() -> None:
    process = multiprocessing.get_context("fork").Process(target=_spin, daemon=True)
    process.start()
    try:
        before_s = engine_cpu_s()
        deadline_s = time.monotonic() + 30
        while engine_cpu_s() < before_s + 0.1:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.1)
        stopped_s = engine_cpu_s()
        time.sleep(0.3)
        assert engine_cpu_s() == pytest.approx(stopped_s, abs=0.02)
    finally:
        process.kill()
        process.join()
