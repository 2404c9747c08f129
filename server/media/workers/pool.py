"""Worker processes that decode media: a bounded queue, a deadline for every job, a new process for each that fails.

A picture does not wait behind an hour of video (`server/media/workers/queue.py`). A job whose deadline passes, whose
request
goes away, or whose input brings the decoder down costs one process and nothing else. Nothing here blocks the event
loop.

The processes themselves: `server/media/workers/process.py` on this side, `server/media/workers/main.py` on theirs.
"""

import asyncio
import logging
from pathlib import Path

from server.core.concurrency import forever
from server.core.errors import ApiError, BadRequestError, DeadlineError, InternalError, UnavailableError
from server.core.settings import MediaSettings
from server.media.messages import Failed, Job, NoSpace, Outcome, Prepared, Refused
from server.media.progress import FrameCount
from server.media.shared_memory import SharedMemoryFullError
from server.media.timings import StageTimes
from server.media.workers.process import WorkerLostError, WorkerProcess
from server.media.workers.queue import JobQueue, QueuedJob, busy_error

MAX_JOBS_PER_WORKER = 500
"""A worker is replaced after so many, before its memory is in pieces."""
MAX_KEPT_BYTES = 512 << 20
"""A worker that has more than this after a job gives it back by being replaced; a new one has 30 MB."""

FROZEN_S = 10.0
"""A worker in whose job nothing happens for so long is lost: no thread of it runs, none wants to."""

_REST_S = 0.5

_log = logging.getLogger(__name__)


class MediaPool:
    """Runs media jobs in worker processes.

    Args:
        settings: `num_workers`, `max_queue`, `timeout_s` and `max_worker_bytes` are read.
        folder: where the files of jobs lie; workers reach no others.
        times: told how long jobs wait and run.
    """

    def __init__(self, settings: MediaSettings, folder: Path, times: StageTimes) -> None:
        """See the class."""
        self._settings = settings
        self._folder = folder
        self._times = times
        self._queue = JobQueue(
            num_workers=settings.num_workers, max_waiting=settings.max_queue, timeout_s=settings.timeout_s
        )
        self._slots: list[asyncio.Task[None]] = []
        self._workers: set[WorkerProcess] = set()
        self.num_restarts = 0
        """Workers replaced because a job failed, was given up or ran out of time."""
        self.num_running = 0
        """Jobs being worked on."""

    @property
    def num_waiting(self) -> int:
        """Jobs that wait for a worker."""
        return len(self._queue)

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
        for what, reasons in (
            ("network, other programs and signals", {worker.open_network for worker in self._workers} - {None}),
            ("all files", {worker.open_files for worker in self._workers} - {None}),
        ):
            if reasons:
                _log.warning(
                    "media workers, which decode what clients send, keep %s in reach, as the kernel does not take "
                    "them away: %s",
                    what,
                    "; ".join(map(str, reasons)),
                )
        for number, worker in enumerate(list(self._workers)):
            takes_large = number > 0 or self._settings.num_workers == 1
            self._open_slot(worker, takes_large=takes_large)
        # One more, for clients that would otherwise wait for the work of another one; its worker is started on demand.
        self._open_slot(None, takes_large=True, is_guest=True)

    def _open_slot(self, worker: WorkerProcess | None, *, takes_large: bool, is_guest: bool = False) -> None:
        async def serve() -> None:
            nonlocal worker
            first, worker = worker, None
            await self._serve(first, takes_large=takes_large, is_guest=is_guest)

        self._slots.append(asyncio.create_task(forever(serve, "a slot for media workers")))

    async def close(self) -> None:
        """Stop the workers; jobs that wait or run end with an error."""
        for slot in self._slots:
            slot.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)
        for worker in list(self._workers):
            await self._end_worker(worker)
        for ticket in self._queue.clear():
            _fail(ticket, UnavailableError("The server is shutting down."))

    async def run(self, job: Job, *, estimate_s: float, param: str, frames: FrameCount | None = None) -> Prepared:
        """Have a job done. Cancelling this gives the job up, also when it has begun.

        Args:
            job: what to do.
            estimate_s: what it may cost one core, in seconds.
            param: the request field, for errors.
            frames: kept up to date while the job runs.

        Raises:
            BadRequestError: the medium cannot be used.
            RateLimitError: too many jobs, or jobs of too much work, wait already, or this one waited too long.
            SharedMemoryFullError: the machine has no memory left for the patches.
            DeadlineError: preparing it took longer than `media.timeout_s`.
        """
        ticket = self._queue.put(job, estimate_s=estimate_s, param=param, frames=frames or FrameCount())
        give_up = asyncio.get_running_loop().call_later(self._settings.timeout_s, self._give_up_waiting, ticket)
        try:
            outcome = await ticket.outcome
        finally:
            give_up.cancel()
            self._queue.remove(ticket)
            ticket.outcome.cancel()
        return _result(outcome, param)

    def _give_up_waiting(self, ticket: QueuedJob) -> None:
        if self._queue.remove(ticket):
            _fail(ticket, busy_error())

    async def _serve(self, worker: WorkerProcess | None, *, takes_large: bool, is_guest: bool) -> None:
        """The life of one slot: one worker after another."""
        while True:
            ticket = await self._queue.next(takes_large=takes_large, is_guest=is_guest)
            self.num_running += 1
            self._times.add("queue", asyncio.get_running_loop().time() - ticket.arrival_s)
            keep = False
            try:
                if worker is not None and worker.has_ended:
                    await self._end_worker(worker)
                    worker = None
                if worker is None:
                    worker = await self._start_worker()
                with self._times.timed("header" if ticket.job.output is None else "decode"):
                    keep = await self._do(worker, ticket)
            except asyncio.CancelledError:
                _fail(ticket, UnavailableError("The server is shutting down."))
                raise
            except Exception:  # a fault of ours ends this job, never the slot
                _log.exception("a media worker cannot be used")
                _fail(ticket, InternalError())
            finally:
                self.num_running -= 1
                self._queue.done(ticket)
            if worker is not None and (is_guest or not (keep and _is_fresh(worker))):
                await self._end_worker(worker)
                self.num_restarts += not keep
                worker = None if is_guest else await self._replacement()

    async def _replacement(self) -> WorkerProcess | None:
        """A new worker, ready before the next job comes; None where that fails, which the next job will hear."""
        try:
            return await self._start_worker()
        except (OSError, RuntimeError):
            _log.exception("a media worker does not start")
            return None

    async def _start_worker(self) -> WorkerProcess:
        worker = await WorkerProcess.start(self._settings, self._folder)
        self._workers.add(worker)
        return worker

    async def _end_worker(self, worker: WorkerProcess) -> None:
        await worker.kill()
        self._workers.discard(worker)

    async def _do(self, worker: WorkerProcess, ticket: QueuedJob) -> bool:
        """Have `worker` do a job; False where it must not be used again."""
        if ticket.outcome.done():  # its request went away
            return True
        work = asyncio.create_task(worker.run(ticket.job, ticket.frames))
        is_frozen = False
        try:
            is_frozen = await self._watch(worker, work, ticket.outcome)
            if ticket.outcome.done():  # it went away now; a short wait is cheaper than a new worker
                await asyncio.wait({work}, timeout=_REST_S)
        finally:
            is_done = work.done()
            work.cancel()
        if not is_done:
            await asyncio.wait({work})
            if is_frozen:
                _log.error("a media worker did nothing for %.0f s and is replaced", FROZEN_S)
                self._try_again(ticket)
            else:
                message = f"Preparing it took longer than {self._settings.timeout_s:g} s (media.timeout_s)."
                _fail(ticket, DeadlineError(message, param=ticket.param))
            return False
        error = work.exception()
        if isinstance(error, WorkerLostError):
            self._try_again(ticket)
            return False
        if error is not None:
            raise error
        if not ticket.outcome.done():
            ticket.outcome.set_result(work.result())
        return True

    async def _watch(
        self, worker: WorkerProcess, work: "asyncio.Task[Outcome]", outcome: "asyncio.Future[Outcome]"
    ) -> bool:
        """Wait until a job is done, or nobody waits for it, or its time is over; True where the worker is frozen."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._settings.timeout_s
        activity = worker.activity()
        while (left_s := deadline_s - loop.time()) > 0:
            await asyncio.wait({work, outcome}, timeout=min(FROZEN_S, left_s), return_when=asyncio.FIRST_COMPLETED)
            if work.done() or outcome.done():
                return False
            before, activity = activity, worker.activity()
            if activity is not None and activity == before and loop.time() < deadline_s:
                return True
        return False

    def _try_again(self, ticket: QueuedJob) -> None:
        """A worker was lost over a job: it may have been the job's fault, or somebody else's. Twice is the job's."""
        if ticket.outcome.done():
            return
        if ticket.is_second_try:
            message = "The decoder broke down on it: it is corrupt, or too much to decode."
            _fail(ticket, BadRequestError(message, param=ticket.param))
        else:
            self._queue.put_back(ticket)


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


def _fail(ticket: QueuedJob, error: ApiError) -> None:
    if not ticket.outcome.done():
        ticket.outcome.set_exception(error)
