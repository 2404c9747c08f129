"""Worker processes that decode media: a bounded queue, a deadline for every job, a new process for each that fails.

Jobs are taken in the order of arrival plus estimated cost, and one worker of several takes only small jobs, so that a
picture does not wait behind an hour of video. A job whose deadline passes, whose request goes away, or whose input
brings the decoder down costs one process and nothing else. Nothing here blocks the event loop.

The processes themselves: `server/media/process.py` on this side, `server/media/worker.py` on theirs.
"""

import asyncio
import itertools
import logging
from dataclasses import dataclass, field

from server.errors import ApiError, BadRequestError, DeadlineError, InternalError, RateLimitError, UnavailableError
from server.media.job import Failed, Job, NoSpace, Outcome, Prepared, Refused
from server.media.process import WorkerLostError, WorkerProcess
from server.media.progress import FrameCount
from server.media.shared import SharedMemoryFullError
from server.settings import MediaSettings

LARGE_JOB_S = 1.0
"""Estimated cost from which on a job is kept off the worker for small ones."""
MAX_JOBS_PER_WORKER = 500
"""A worker is replaced after so many, before its memory is in pieces."""
MAX_KEPT_BYTES = 512 << 20
"""A worker that has more than this after a job gives it back by being replaced; a new one has 30 MB."""

_REST_S = 0.5

_log = logging.getLogger(__name__)


@dataclass(order=True, slots=True)
class _Ticket:
    """A job that waits or runs; sorted by when it should be taken."""

    due_s: float
    number: int
    job: Job = field(compare=False)
    frames: FrameCount = field(compare=False)
    param: str = field(compare=False)
    is_large: bool = field(compare=False)
    outcome: "asyncio.Future[Outcome]" = field(compare=False)


class MediaPool:
    """Runs media jobs in worker processes.

    Args:
        settings: `num_workers`, `max_queue`, `timeout_s` and `max_worker_bytes` are read.
    """

    def __init__(self, settings: MediaSettings) -> None:
        """See the class."""
        self._settings = settings
        self._waiting: list[_Ticket] = []
        self._numbers = itertools.count()
        self._changed = asyncio.Condition()
        self._slots: list[asyncio.Task[None]] = []
        self._workers: set[WorkerProcess] = set()
        self._num_idle = {False: 0, True: 0}
        self.num_restarts = 0
        """Workers replaced because a job failed, was given up or ran out of time."""
        self.num_running = 0
        """Jobs being worked on."""

    @property
    def num_waiting(self) -> int:
        """Jobs that wait for a worker."""
        return len(self._waiting)

    async def start(self) -> None:
        """Start the workers.

        Raises:
            RuntimeError: a worker does not start; its output tells why.
        """
        starts = [self._start_worker() for _ in range(self._settings.num_workers)]
        started = await asyncio.gather(*starts, return_exceptions=True)
        for each in started:
            if isinstance(each, BaseException):
                await self.close()
                raise each
        if reasons := {worker.open_network for worker in self._workers if worker.open_network is not None}:
            _log.warning(
                "media workers, which decode what clients send, keep the network and other programs in reach, as the "
                "kernel does not take them away: %s",
                "; ".join(reasons),
            )
        for number, worker in enumerate(list(self._workers)):
            takes_large = number > 0 or self._settings.num_workers == 1
            self._slots.append(asyncio.create_task(self._serve(worker, takes_large=takes_large)))

    async def close(self) -> None:
        """Stop the workers; jobs that wait or run end with an error."""
        for slot in self._slots:
            slot.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)
        for worker in list(self._workers):
            await self._end_worker(worker)
        for ticket in self._waiting:
            _fail(ticket, UnavailableError("The server is shutting down."))
        self._waiting.clear()

    async def run(self, job: Job, *, estimate_s: float, param: str, frames: FrameCount | None = None) -> Prepared:
        """Have a job done. Cancelling this gives the job up, also when it has begun.

        Args:
            job: what to do.
            estimate_s: what it may cost, in seconds.
            param: the request field, for errors.
            frames: kept up to date while the job runs.

        Raises:
            BadRequestError: the medium cannot be used.
            RateLimitError: too many jobs wait already, or this one waited too long.
            SharedMemoryFullError: the machine has no memory left for the patches.
            DeadlineError: preparing it took longer than `media.timeout_s`.
        """
        is_large = estimate_s >= LARGE_JOB_S
        if len(self._waiting) >= self._settings.max_queue + self._num_idle[is_large]:
            raise _busy_error()
        loop = asyncio.get_running_loop()
        due_s, number, outcome_known = loop.time() + estimate_s, next(self._numbers), loop.create_future()
        ticket = _Ticket(due_s, number, job, frames or FrameCount(), param, is_large, outcome_known)
        self._waiting.append(ticket)
        give_up = loop.call_later(self._settings.timeout_s, self._give_up_waiting, ticket)
        try:
            async with self._changed:
                self._changed.notify_all()
            outcome = await ticket.outcome
        finally:
            give_up.cancel()
            self._forget(ticket)
            ticket.outcome.cancel()
        return _result(outcome, param)

    def _forget(self, ticket: _Ticket) -> bool:
        """Take a ticket out of the queue; False where a worker has it already."""
        if ticket not in self._waiting:
            return False
        self._waiting.remove(ticket)
        return True

    def _give_up_waiting(self, ticket: _Ticket) -> None:
        if self._forget(ticket):
            _fail(ticket, _busy_error())

    async def _next(self, *, takes_large: bool) -> _Ticket:
        """The next job for a worker, waiting for one."""
        kinds = (False, True) if takes_large else (False,)
        for is_large in kinds:
            self._num_idle[is_large] += 1
        try:
            async with self._changed:
                while True:
                    fitting = [ticket for ticket in self._waiting if takes_large or not ticket.is_large]
                    if fitting:
                        ticket = min(fitting)
                        self._forget(ticket)
                        return ticket
                    await self._changed.wait()
        finally:
            for is_large in kinds:
                self._num_idle[is_large] -= 1

    async def _serve(self, worker: WorkerProcess | None, *, takes_large: bool) -> None:
        """The life of one slot: one worker after another."""
        while True:
            ticket = await self._next(takes_large=takes_large)
            self.num_running += 1
            keep = False
            try:
                if worker is not None and worker.has_ended:
                    await self._end_worker(worker)
                    worker = None
                if worker is None:
                    worker = await self._start_worker()
                keep = await self._do(worker, ticket)
            except asyncio.CancelledError:
                _fail(ticket, UnavailableError("The server is shutting down."))
                raise
            except Exception:  # a fault of ours ends this job, never the slot
                _log.exception("a media worker cannot be used")
                _fail(ticket, InternalError())
            finally:
                self.num_running -= 1
            if worker is not None and not (keep and _is_fresh(worker)):
                await self._end_worker(worker)
                self.num_restarts += not keep
                worker = await self._replacement()

    async def _replacement(self) -> WorkerProcess | None:
        """A new worker, ready before the next job comes; None where that fails, which the next job will hear."""
        try:
            return await self._start_worker()
        except (OSError, RuntimeError):
            _log.exception("a media worker does not start")
            return None

    async def _start_worker(self) -> WorkerProcess:
        worker = await WorkerProcess.start(self._settings)
        self._workers.add(worker)
        return worker

    async def _end_worker(self, worker: WorkerProcess) -> None:
        await worker.kill()
        self._workers.discard(worker)

    async def _do(self, worker: WorkerProcess, ticket: _Ticket) -> bool:
        """Have `worker` do a job; False where it must not be used again."""
        if ticket.outcome.done():  # its request went away
            return True
        work = asyncio.create_task(worker.run(ticket.job, ticket.frames))
        try:
            await asyncio.wait(
                {work, ticket.outcome}, timeout=self._settings.timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if ticket.outcome.done():  # it went away now; a short wait is cheaper than a new worker
                await asyncio.wait({work}, timeout=_REST_S)
        finally:
            is_done = work.done()
            work.cancel()
        if not is_done:
            await asyncio.wait({work})
            message = f"Preparing it took longer than {self._settings.timeout_s:g} s (media.timeout_s)."
            _fail(ticket, DeadlineError(message, param=ticket.param))
            return False
        error = work.exception()
        if isinstance(error, WorkerLostError):
            message = "The decoder broke down on it: it is corrupt, or too much to decode."
            _fail(ticket, BadRequestError(message, param=ticket.param))
            return False
        if error is not None:
            raise error
        if not ticket.outcome.done():
            ticket.outcome.set_result(work.result())
        return True


def _is_fresh(worker: WorkerProcess) -> bool:
    return worker.num_jobs < MAX_JOBS_PER_WORKER and worker.kept_bytes <= MAX_KEPT_BYTES


def _result(outcome: Outcome, param: str) -> Prepared:
    match outcome:
        case Prepared():
            return outcome
        case Refused(message):
            raise BadRequestError(message, param=param)
        case NoSpace():
            raise SharedMemoryFullError
        case Failed(traceback):
            _log.error("a media worker failed:\n%s", traceback)
            raise InternalError


def _fail(ticket: _Ticket, error: ApiError) -> None:
    if not ticket.outcome.done():
        ticket.outcome.set_exception(error)


def _busy_error() -> RateLimitError:
    return RateLimitError("Too many pictures and clips wait to be prepared (media.max_queue).", retry_after_s=2)
