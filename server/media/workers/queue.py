"""Jobs that wait for a worker, in the order in which they should be taken, and bounded in number and in work.

Clients (`fair_queue.CLIENT`) take turns: the next job is one of the client for which least work has been taken. Of one
client's jobs, each is due at its arrival plus its estimated cost, so that cheap ones overtake dear ones, though never
for longer than `MAX_LEAD_S`. One worker of several takes only small jobs.
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
    client: str = field(compare=False, default_factory=CLIENT.get)
    is_second_try: bool = field(compare=False, default=False)
    """Whether a worker was lost over it once."""

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
        """See the class."""
        self._num_takers = {False: num_workers, True: max(1, num_workers - 1)}
        self._max_waiting = max_waiting
        self._timeout_s = timeout_s
        self._work_s: defaultdict[str, float] = defaultdict(float)
        """Work taken for each client that waits or runs, counted from the least among them when it came."""
        self._num_running: Counter[str] = Counter()
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
            self._make_room(ticket.client)
        ahead_s = self._ahead_s(ticket)
        excess_s = ahead_s / self._num_takers[ticket.is_large] - self._timeout_s
        if excess_s > 0:
            raise RateLimitError(
                f"About {ahead_s:.0f} s of work on pictures and clips go first (media.timeout_s, media.num_workers).",
                retry_after_s=math.ceil(excess_s),
            )
        self._add(ticket)
        return ticket

    def put_back(self, ticket: QueuedJob) -> None:
        """Have a job done once more, whose worker was lost over it."""
        ticket.is_second_try = True
        self._add(ticket)

    def _add(self, ticket: QueuedJob) -> None:
        if ticket.client not in self._work_s:
            self._work_s[ticket.client] = min(self._work_s.values(), default=0.0)
        self._waiting.append(ticket)
        self._arrival.set()

    def _ahead_s(self, ticket: QueuedJob) -> float:
        """Work that goes before a ticket: what its client has sent before, and as much of each other client's."""
        by_client: defaultdict[str, float] = defaultdict(float)
        for other in self._waiting:
            if other.client != ticket.client or other < ticket:
                by_client[other.client] += other.estimate_s
        own_s = by_client.pop(ticket.client, 0.0)
        return own_s + sum(min(other_s, own_s + ticket.estimate_s) for other_s in by_client.values())

    def _make_room(self, client: str) -> None:
        """Push out the newest job of the client that has most waiting, unless that is this one.

        Raises:
            RateLimitError: it is.
        """
        num_waiting = Counter(ticket.client for ticket in self._waiting)
        greediest, most = max(num_waiting.items(), key=lambda item: item[1], default=(client, 0))
        if greediest == client or most <= num_waiting[client] + 1:
            raise busy_error()
        newest = max((ticket for ticket in self._waiting if ticket.client == greediest), key=lambda t: t.number)
        self.remove(newest)
        if not newest.outcome.done():
            newest.outcome.set_exception(busy_error())

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

    async def next(self, *, takes_large: bool, is_guest: bool = False) -> QueuedJob:
        """The next job for a worker, waiting for one; `done` follows.

        Args:
            takes_large: whether the worker takes large jobs.
            is_guest: whether it works only for clients that no worker works for.
        """
        kinds = () if is_guest else (False, True) if takes_large else (False,)
        for is_large in kinds:
            self._num_idle[is_large] += 1
        try:
            while not (fitting := self._fitting(takes_large=takes_large, is_guest=is_guest)):
                self._arrival.clear()
                await self._arrival.wait()
            client = min((ticket.client for ticket in fitting), key=self._work_s.__getitem__)
            ticket = min(ticket for ticket in fitting if ticket.client == client)
            self._waiting.remove(ticket)
            self._num_running[client] += 1
            self._work_s[client] += ticket.estimate_s
            return ticket
        finally:
            for is_large in kinds:
                self._num_idle[is_large] -= 1

    def done(self, ticket: QueuedJob) -> None:
        """A worker has done with a job that `next` gave it."""
        self._num_running[ticket.client] -= 1
        if not self._num_running[ticket.client]:
            del self._num_running[ticket.client]
        self._forget_absent()
        self._arrival.set()

    def _fitting(self, *, takes_large: bool, is_guest: bool) -> list[QueuedJob]:
        if is_guest:
            return [ticket for ticket in self._waiting if self._needs_guest(ticket)]
        return [ticket for ticket in self._waiting if takes_large or not ticket.is_large]

    def _needs_guest(self, ticket: QueuedJob) -> bool:
        """Whether a job waits because all workers that could take it work for others."""
        others_run = bool(self._num_running) and not self._num_running[ticket.client]
        return others_run and not self._num_idle[ticket.is_large]

    def _forget_absent(self) -> None:
        present = {ticket.client for ticket in self._waiting} | set(self._num_running)
        for client in [client for client in self._work_s if client not in present]:
            del self._work_s[client]


def busy_error() -> RateLimitError:
    """What a client hears whose job cannot wait, or has waited too long."""
    return RateLimitError("Too many pictures and clips wait to be prepared (media.max_queue).", retry_after_s=2)
