"""Jobs that wait for a worker, in the order in which they should be taken, and bounded in number and in work.

A job is due at its arrival plus its estimated cost, so that cheap ones overtake dear ones, though never for longer than
`MAX_LEAD_S`. One worker of several takes only small jobs.
"""

import asyncio
import itertools
import math
from dataclasses import dataclass, field

from server.core.errors import RateLimitError
from server.media.messages import Job, Outcome
from server.media.progress import FrameCount

LARGE_JOB_S = 1.0
"""Estimated cost from which on a job is kept off the worker for small ones."""
MAX_LEAD_S = 30.0
"""How much later a cheaper job may come and still go first."""


@dataclass(order=True, slots=True)
class QueuedJob:
    """A job that waits or runs; sorted by when it should be taken."""

    due_s: float
    number: int
    arrival_s: float = field(compare=False)
    job: Job = field(compare=False)
    estimate_s: float = field(compare=False)
    frames: FrameCount = field(compare=False)
    param: str = field(compare=False)
    outcome: "asyncio.Future[Outcome]" = field(compare=False)

    @property
    def is_large(self) -> bool:
        """Whether the worker for small jobs leaves it alone."""
        return self.estimate_s >= LARGE_JOB_S


class JobQueue:
    """Tickets that wait.

    Args:
        num_workers: who takes jobs.
        max_waiting: jobs that may wait besides those an idle worker is about to take.
        timeout_s: how long a job may run, and may have to wait by estimate when it comes.
    """

    def __init__(self, *, num_workers: int, max_waiting: int, timeout_s: float) -> None:
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

    def put(self, job: Job, *, estimate_s: float, param: str, frames: FrameCount) -> QueuedJob:
        """Add a job.

        Args:
            job: what to do.
            estimate_s: what it may cost one core, in seconds.
            param: the request field, for errors.
            frames: as `MediaPool.run`.

        Raises:
            RateLimitError: too many jobs, or jobs of too much work, would go first.
        """
        loop = asyncio.get_running_loop()
        estimate_s = min(estimate_s, self._timeout_s)
        now_s = loop.time()
        due_s = now_s + min(estimate_s, MAX_LEAD_S)
        ticket = QueuedJob(due_s, next(self._numbers), now_s, job, estimate_s, frames, param, loop.create_future())
        if len(self._waiting) >= self._max_waiting + self._num_idle[ticket.is_large]:
            raise busy_error()
        ahead_s = sum(other.estimate_s for other in self._waiting if other < ticket)
        excess_s = ahead_s / self._num_takers[ticket.is_large] - self._timeout_s
        if excess_s > 0:
            raise RateLimitError(
                f"About {ahead_s:.0f} s of work on pictures and clips go first (media.timeout_s, media.num_workers).",
                retry_after_s=math.ceil(excess_s),
            )
        self._waiting.append(ticket)
        self._arrival.set()
        return ticket

    def remove(self, ticket: QueuedJob) -> bool:
        """Take a ticket out; False where it does not wait any more."""
        if ticket not in self._waiting:
            return False
        self._waiting.remove(ticket)
        return True

    def clear(self) -> list[QueuedJob]:
        """Take all tickets out."""
        waiting, self._waiting = self._waiting, []
        return waiting

    async def next(self, *, takes_large: bool) -> QueuedJob:
        """The next job for a worker, waiting for one."""
        kinds = (False, True) if takes_large else (False,)
        for is_large in kinds:
            self._num_idle[is_large] += 1
        try:
            while not (fitting := [ticket for ticket in self._waiting if takes_large or not ticket.is_large]):
                self._arrival.clear()
                await self._arrival.wait()
            ticket = min(fitting)
            self._waiting.remove(ticket)
            return ticket
        finally:
            for is_large in kinds:
                self._num_idle[is_large] -= 1


def busy_error() -> RateLimitError:
    """What a client hears whose job cannot wait, or has waited too long."""
    return RateLimitError("Too many pictures and clips wait to be prepared (media.max_queue).", retry_after_s=2)
