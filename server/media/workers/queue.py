"""Jobs that wait for a worker, in the order in which they run, bounded in number and in work.

A job is due at its arrival plus its estimated time, so that short ones overtake long ones, but by no more than
`MAX_LEAD_S`. One worker of several runs small jobs only.
"""

import asyncio
import itertools
import math
from dataclasses import dataclass, field

from server.core.errors import RateLimitError
from server.media.messages import Job, Outcome
from server.media.progress import FrameCount

LARGE_JOB_S = 1.0
"""Estimated time from which on a job is kept off the worker for small ones."""
MAX_LEAD_S = 30.0
"""How much later a shorter job may arrive and still run first."""


@dataclass(order=True, slots=True)
class QueuedJob:
    """A job that waits or runs; sorted by when it is due."""

    due_s: float
    number: int
    arrival_s: float = field(compare=False)
    job: Job = field(compare=False)
    estimate_s: float = field(compare=False)
    frames: FrameCount = field(compare=False)
    outcome: "asyncio.Future[Outcome]" = field(compare=False)

    @property
    def is_large(self) -> bool:
        """Whether the worker for small jobs does not run it."""
        return self.estimate_s >= LARGE_JOB_S


class JobQueue:
    """The waiting jobs.

    Args:
        num_workers: how many workers run jobs.
        max_waiting: jobs that may wait, in addition to those that an idle worker is about to start.
        timeout_s: how long a job may run, and may have to wait by estimate when it arrives.
    """

    def __init__(self, *, num_workers: int, max_waiting: int, timeout_s: float) -> None:
        """No job waits yet."""
        self._num_takers = {False: num_workers, True: max(1, num_workers - 1)}
        self._max_waiting = max_waiting
        self._timeout_s = timeout_s
        self._waiting: list[QueuedJob] = []
        self._numbers = itertools.count()
        self._arrival = asyncio.Event()
        self._num_idle = {False: 0, True: 0}

    def __len__(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    def put(self, job: Job, *, estimate_s: float, frames: FrameCount) -> QueuedJob:
        """Add a job.

        Args:
            job: what to do.
            estimate_s: the time it may take one core, in seconds.
            frames: as `MediaPool.run`.

        Raises:
            RateLimitError: too many jobs, or too much work, would run first.
        """
        loop = asyncio.get_running_loop()
        estimate_s = min(estimate_s, self._timeout_s)
        now_s = loop.time()
        due_s = now_s + min(estimate_s, MAX_LEAD_S)
        queued = QueuedJob(due_s, next(self._numbers), now_s, job, estimate_s, frames, loop.create_future())
        if len(self._waiting) >= self._max_waiting + self._num_idle[queued.is_large]:
            raise busy_error()
        ahead_s = sum(other.estimate_s for other in self._waiting if other < queued)
        excess_s = ahead_s / self._num_takers[queued.is_large] - self._timeout_s
        if excess_s > 0:
            raise RateLimitError(
                f"The media queue is about {ahead_s:.0f} s long (media.decode_timeout_s, media.num_workers); "
                "retry later.",
                retry_after_s=math.ceil(excess_s),
            )
        self._waiting.append(queued)
        self._arrival.set()
        return queued

    def remove(self, queued: QueuedJob) -> bool:
        """Remove a job; False where it does not wait any more."""
        if queued not in self._waiting:
            return False
        self._waiting.remove(queued)
        return True

    def clear(self) -> list[QueuedJob]:
        """Remove all jobs and return them."""
        waiting, self._waiting = self._waiting, []
        return waiting

    async def next(self, *, takes_large: bool) -> QueuedJob:
        """Wait for the next job for a worker, and remove it."""
        sizes = (False, True) if takes_large else (False,)
        for is_large in sizes:
            self._num_idle[is_large] += 1
        try:
            while not (fitting := [queued for queued in self._waiting if takes_large or not queued.is_large]):
                self._arrival.clear()
                await self._arrival.wait()
            queued = min(fitting)
            self._waiting.remove(queued)
            return queued
        finally:
            for is_large in sizes:
                self._num_idle[is_large] -= 1


def busy_error() -> RateLimitError:
    """The error of a job that cannot wait, or has waited too long."""
    return RateLimitError("The media queue is full (media.max_queued_jobs); retry later.", retry_after_s=2)
