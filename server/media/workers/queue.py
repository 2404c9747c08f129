"""Jobs that wait for a worker, in the order in which they run, bounded in number and in work.

Clients (`fair_queue.CLIENT`) take turns: the next job belongs to the client for which the least work has been started.
Among one client's jobs, each is due at its arrival plus its estimated time, so that short ones overtake long ones, but
by no more than `MAX_LEAD_S`. One worker of several runs small jobs only.
"""

import asyncio
import itertools
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from model_executor.fair_queue import CLIENT
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
    client: str = field(compare=False, default_factory=CLIENT.get)
    is_retry: bool = field(compare=False, default=False)
    """Whether a worker was lost over it once."""

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
        self._work_s: defaultdict[str, float] = defaultdict(float)
        """Work started for each client that has jobs, counted from the least among them when it arrived."""
        self._num_running: Counter[str] = Counter()
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
            self._make_room(queued.client)
        ahead_s = self._ahead_s(queued)
        excess_s = ahead_s / self._num_takers[queued.is_large] - self._timeout_s
        if excess_s > 0:
            raise RateLimitError(
                f"The media queue is about {ahead_s:.0f} s long (media.decode_timeout_s, media.num_workers); "
                "retry later.",
                retry_after_s=math.ceil(excess_s),
            )
        self._add(queued)
        return queued

    def retry(self, queued: QueuedJob) -> None:
        """Run a job once more, whose worker was lost over it."""
        queued.is_retry = True
        self._add(queued)

    def _add(self, queued: QueuedJob) -> None:
        if queued.client not in self._work_s:
            self._work_s[queued.client] = min(self._work_s.values(), default=0.0)
        self._waiting.append(queued)
        self._arrival.set()

    def _ahead_s(self, queued: QueuedJob) -> float:
        """Work that runs first: its client's earlier jobs, and as much of each other client's."""
        by_client: defaultdict[str, float] = defaultdict(float)
        for other in self._waiting:
            if other.client != queued.client or other < queued:
                by_client[other.client] += other.estimate_s
        own_s = by_client.pop(queued.client, 0.0)
        return own_s + sum(min(other_s, own_s + queued.estimate_s) for other_s in by_client.values())

    def _make_room(self, client: str) -> None:
        """Reject the newest job of the client that has most waiting, unless that is this one.

        Raises:
            RateLimitError: it is.
        """
        num_waiting = Counter(queued.client for queued in self._waiting)
        greediest, most = max(num_waiting.items(), key=lambda item: item[1], default=(client, 0))
        if greediest == client or most <= num_waiting[client] + 1:
            raise busy_error()
        newest = max((queued for queued in self._waiting if queued.client == greediest), key=lambda q: q.number)
        self.remove(newest)
        if not newest.outcome.done():
            newest.outcome.set_exception(busy_error())

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

    async def next(self, *, takes_large: bool, is_guest: bool = False) -> QueuedJob:
        """Wait for the next job for a worker, and remove it; `finish` follows.

        Args:
            takes_large: whether the worker runs large jobs.
            is_guest: whether it runs only jobs of clients that wait because all other workers run those of others.
        """
        sizes = () if is_guest else (False, True) if takes_large else (False,)
        for is_large in sizes:
            self._num_idle[is_large] += 1
        try:
            while not (fitting := self._fitting(takes_large=takes_large, is_guest=is_guest)):
                self._arrival.clear()
                await self._arrival.wait()
            client = min((queued.client for queued in fitting), key=self._work_s.__getitem__)
            queued = min(queued for queued in fitting if queued.client == client)
            self._waiting.remove(queued)
            self._num_running[client] += 1
            self._work_s[client] += queued.estimate_s
            return queued
        finally:
            for is_large in sizes:
                self._num_idle[is_large] -= 1

    def finish(self, queued: QueuedJob) -> None:
        """A job that `next` returned does not run any more."""
        self._num_running[queued.client] -= 1
        if not self._num_running[queued.client]:
            del self._num_running[queued.client]
        present = {waiting.client for waiting in self._waiting} | set(self._num_running)
        for client in [client for client in self._work_s if client not in present]:
            del self._work_s[client]
        self._arrival.set()

    def _fitting(self, *, takes_large: bool, is_guest: bool) -> list[QueuedJob]:
        if is_guest:
            return [queued for queued in self._waiting if self._needs_guest(queued)]
        return [queued for queued in self._waiting if takes_large or not queued.is_large]

    def _needs_guest(self, queued: QueuedJob) -> bool:
        """Whether a job waits because all workers that could run it run those of other clients."""
        others_run = bool(self._num_running) and not self._num_running[queued.client]
        return others_run and not self._num_idle[queued.is_large]


def busy_error() -> RateLimitError:
    """The error of a job that cannot wait, or has waited too long."""
    return RateLimitError("The media queue is full (media.max_queued_jobs); retry later.", retry_after_s=2)
