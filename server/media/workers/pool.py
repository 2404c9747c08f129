"""Pool of the processes that decode images and videos: a bounded queue, and a deadline for every job.

An image does not wait behind an hour of video (`server/media/workers/queue.py`). A job that exceeds its deadline, whose
request is gone, or whose input crashes the decoder costs one process and nothing else; a new one replaces it. Nothing
here blocks the event loop.

The processes: `server/media/workers/process.py` on this side, `server/media/workers/main.py` on theirs.
"""

import asyncio
import logging
from pathlib import Path

from model_executor.cpu import num_cores
from server.core.concurrency import forever
from server.core.errors import DeadlineError, InternalError, UnavailableError
from server.core.settings import MediaSettings
from server.media.errors import MediaError
from server.media.messages import Failed, Job, NoSpace, Outcome, Prepared, Rejected
from server.media.progress import FrameCount
from server.media.shared_memory import SharedMemoryFullError
from server.media.timings import StageTimes
from server.media.workers.process import WorkerLostError, WorkerProcess
from server.media.workers.queue import JobQueue, QueuedJob, busy_error

MAX_JOBS_PER_WORKER = 500
"""A worker is replaced after so many, before its memory is fragmented."""
MAX_KEPT_BYTES = 512 << 20
"""A worker that uses more than this after a job is replaced; a new one uses 30 MB."""

FROZEN_S = 10.0
"""A worker counts as lost if for so long no thread of it runs, or is ready to run, during a job."""

_REST_S = 0.5

_log = logging.getLogger(__name__)


class MediaPool:
    """Runs media jobs in worker processes.

    Args:
        settings: `num_workers`, `max_queued_jobs`, `decode_timeout_s` and `max_worker_bytes` are read.
        directory: of the files of jobs; workers can open no others.
        times: counts how long jobs wait and run.
    """

    def __init__(self, settings: MediaSettings, directory: Path, times: StageTimes) -> None:
        """No worker runs yet; see `start`."""
        self._settings = settings
        self._directory = directory
        self._times = times
        self._num_workers = settings.num_workers or max(2, min(16, num_cores() // 2))
        self._queue = JobQueue(
            num_workers=self._num_workers,
            max_waiting=settings.max_queued_jobs,
            timeout_s=settings.decode_timeout_s,
        )
        self._slots: list[asyncio.Task[None]] = []
        self._workers: set[WorkerProcess] = set()
        self.num_restarts = 0
        """Workers replaced because a job failed, was canceled or exceeded its time."""
        self.num_running = 0
        """Jobs being worked on."""

    @property
    def num_waiting(self) -> int:
        """Jobs that wait for a worker."""
        return len(self._queue)

    async def start(self) -> None:
        """Start the workers.

        Raises:
            RuntimeError: a worker failed to start; its output says why.
        """
        starts = [self._start_worker() for _ in range(self._num_workers)]
        started = await asyncio.gather(*starts, return_exceptions=True)
        for each in started:
            if isinstance(each, BaseException):
                await self.close()
                raise each
        for what, reasons in (
            ("the network, other programs and signals", {worker.sandbox_error for worker in self._workers} - {None}),
            ("other files", {worker.files_error for worker in self._workers} - {None}),
        ):
            if reasons:
                _log.warning(
                    "media workers run without a sandbox, which would keep %s from them: the kernel does not support "
                    "it (%s)",
                    what,
                    "; ".join(map(str, reasons)),
                )
        for number, worker in enumerate(list(self._workers)):
            takes_large = number > 0 or self._num_workers == 1
            self._open_slot(worker, takes_large=takes_large)
        # One more, for clients that would otherwise wait for another one's work; its worker is started on demand.
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
        for queued in self._queue.clear():
            _fail(queued, UnavailableError("The server is shutting down."))

    async def run(self, job: Job, *, estimate_s: float, frames: FrameCount | None = None) -> Prepared:
        """Run a job in a worker. Canceling this cancels the job, even when it is already running.

        Args:
            job: what to do.
            estimate_s: the time it may take one core, in seconds.
            frames: updated while the job runs.

        Raises:
            MediaError: the image or video cannot be used.
            RateLimitError: too many jobs, or too much work, are waiting, or this one waited too long.
            SharedMemoryFullError: the machine has no shared memory left for the patches.
            DeadlineError: it took longer than `media.decode_timeout_s`.
        """
        queued = self._queue.put(job, estimate_s=estimate_s, frames=frames or FrameCount())
        give_up = asyncio.get_running_loop().call_later(self._settings.decode_timeout_s, self._give_up_waiting, queued)
        try:
            outcome = await queued.outcome
        finally:
            give_up.cancel()
            self._queue.remove(queued)
            queued.outcome.cancel()
        return _result(outcome)

    def _give_up_waiting(self, queued: QueuedJob) -> None:
        if self._queue.remove(queued):
            _fail(queued, busy_error())

    async def _serve(self, worker: WorkerProcess | None, *, takes_large: bool, is_guest: bool) -> None:
        """The life of one slot: one worker after another."""
        while True:
            queued = await self._queue.next(takes_large=takes_large, is_guest=is_guest)
            self.num_running += 1
            self._times.add("queue", asyncio.get_running_loop().time() - queued.arrival_s)
            keep = False
            try:
                if worker is not None and worker.has_ended:
                    await self._end_worker(worker)
                    worker = None
                if worker is None:
                    worker = await self._start_worker()
                with self._times.timed("header" if queued.job.output is None else "decode"):
                    keep = await self._do(worker, queued)
            except asyncio.CancelledError:
                _fail(queued, UnavailableError("The server is shutting down."))
                raise
            except Exception:  # a bug of the server ends this job, never the slot
                _log.exception("a media worker cannot be used")
                _fail(queued, InternalError())
            finally:
                self.num_running -= 1
                self._queue.finish(queued)
            if worker is not None and (is_guest or not (keep and _is_fresh(worker))):
                await self._end_worker(worker)
                self.num_restarts += not keep
                worker = None if is_guest else await self._replacement()

    async def _replacement(self) -> WorkerProcess | None:
        """A new worker, ready before the next job arrives; None where that fails, which the next job will report."""
        try:
            return await self._start_worker()
        except (OSError, RuntimeError):
            _log.exception("a media worker failed to start")
            return None

    async def _start_worker(self) -> WorkerProcess:
        worker = await WorkerProcess.start(self._settings, self._directory)
        self._workers.add(worker)
        return worker

    async def _end_worker(self, worker: WorkerProcess) -> None:
        await worker.kill()
        self._workers.discard(worker)

    async def _do(self, worker: WorkerProcess, queued: QueuedJob) -> bool:
        """Run a job in `worker`; False where that must not be used again."""
        if queued.outcome.done():  # its request is gone
            return True
        work = asyncio.create_task(worker.run(queued.job, queued.frames))
        is_frozen = False
        try:
            is_frozen = await self._watch(worker, work, queued.outcome)
            if queued.outcome.done():  # it is gone now; a short wait is cheaper than a new worker
                await asyncio.wait({work}, timeout=_REST_S)
        finally:
            is_finished = work.done()
            work.cancel()
        if not is_finished:
            await asyncio.wait({work})
            if is_frozen:
                _log.error("a media worker has done nothing for %.0f s and is replaced", FROZEN_S)
                self._retry(queued)
            else:
                limit = f"{self._settings.decode_timeout_s:g} s (media.decode_timeout_s)"
                _fail(queued, DeadlineError(f"Decoding the image or video took longer than {limit}."))
            return False
        error = work.exception()
        if isinstance(error, WorkerLostError):
            self._retry(queued)
            return False
        if error is not None:
            raise error
        if not queued.outcome.done():
            queued.outcome.set_result(work.result())
        return True

    async def _watch(
        self, worker: WorkerProcess, work: "asyncio.Task[Outcome]", outcome: "asyncio.Future[Outcome]"
    ) -> bool:
        """Wait until a job has ended, its request is gone, or its time is over; True where the worker is frozen."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._settings.decode_timeout_s
        activity = worker.activity()
        while (left_s := deadline_s - loop.time()) > 0:
            await asyncio.wait({work, outcome}, timeout=min(FROZEN_S, left_s), return_when=asyncio.FIRST_COMPLETED)
            if work.done() or outcome.done():
                return False
            before, activity = activity, worker.activity()
            if activity is not None and activity == before and loop.time() < deadline_s:
                return True
        return False

    def _retry(self, queued: QueuedJob) -> None:
        """A worker was lost over a job, which may be the job's fault or not. Twice is the job's."""
        if queued.outcome.done():
            return
        if queued.is_retry:
            message = "The image or video could not be decoded: it is corrupt or too complex."
            _fail(queued, MediaError("media_parse_error", message))
        else:
            self._queue.retry(queued)


def _is_fresh(worker: WorkerProcess) -> bool:
    return worker.num_jobs < MAX_JOBS_PER_WORKER and worker.kept_bytes <= MAX_KEPT_BYTES


def _result(outcome: Outcome) -> Prepared:
    match outcome:
        case Prepared():
            return outcome
        case Rejected(code, message, limit):
            raise MediaError(code, message, limit=limit)
        case NoSpace():
            raise SharedMemoryFullError
        case Failed(traceback):
            _log.error("a media worker failed:\n%s", traceback)
            raise InternalError


def _fail(queued: QueuedJob, error: Exception) -> None:
    if not queued.outcome.done():
        queued.outcome.set_exception(error)
