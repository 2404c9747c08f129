"""The server's side of one worker process: start it, give it a job, end it.

Twin that must agree: `server/media/workers/main.py`.
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import msgspec

from server.core.settings import MediaSettings
from server.media.messages import FramesDone, Job, Outcome, Ready
from server.media.progress import FrameCount

_START_TIMEOUT_S = 60
_MAX_LINE_BYTES = 1 << 20
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_READY: msgspec.json.Decoder[Ready] = msgspec.json.Decoder(Ready)
_ANSWER: msgspec.json.Decoder[FramesDone | Outcome] = msgspec.json.Decoder(FramesDone | Outcome)


class WorkerLostError(Exception):
    """The worker ended in the middle of a job."""


class WorkerProcess:
    """One worker process; made by `start`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Wrap a process that was just started."""
        self._process = process
        self.pid = process.pid
        """The operating system's number for it."""
        self.num_jobs = 0
        """Jobs it has run."""
        self.sandbox_error: str | None = None
        """As `Ready.sandbox_error`."""
        self.files_error: str | None = None
        """As `Ready.files_error`."""

    @classmethod
    async def start(cls, settings: MediaSettings, directory: Path) -> "WorkerProcess":
        """Start a process and wait until it is ready.

        Args:
            settings: `max_worker_bytes` is read.
            directory: of the files of jobs.

        Raises:
            RuntimeError: it ended, or did not get ready in time.
        """
        # The same modules wherever this server was started, and no secrets of its environment.
        environment = {**_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "server.media.workers.main",
            str(settings.max_worker_bytes),
            str(directory),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            limit=_MAX_LINE_BYTES,
            start_new_session=True,  # a Ctrl-C in the terminal is for the server to handle
        )
        worker = cls(process)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                ready = _READY.decode(await worker._read_line())
                worker.sandbox_error, worker.files_error = ready.sandbox_error, ready.files_error
        except (TimeoutError, WorkerLostError, msgspec.DecodeError) as error:
            await worker.kill()
            raise RuntimeError("a media worker failed to start") from error
        except BaseException:
            await worker.kill()
            raise
        return worker

    @property
    def has_ended(self) -> bool:
        """Whether the process ended by itself."""
        return self._process.returncode is not None

    @property
    def kept_bytes(self) -> int:
        """Memory of its own that it uses at the moment; 0 where it has ended."""
        try:
            _, resident, shared = map(int, Path(f"/proc/{self.pid}/statm").read_bytes().split()[:3])
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return (resident - shared) * _PAGE_BYTES

    def activity(self) -> int | None:
        """CPU time so far, in ticks; None while one of its threads runs, is ready to run, or waits for a disk."""
        try:
            tasks = [task.read_text() for task in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        except (FileNotFoundError, ProcessLookupError):  # a thread has just ended
            return None
        fields = [task.rsplit(")", 1)[1].split() for task in tasks]
        if any(state in ("R", "D") for state, *_ in fields):
            return None
        return sum(int(field[11]) + int(field[12]) for field in fields)

    async def run(self, job: Job, frames: FrameCount) -> Outcome:
        """Run one job.

        Args:
            job: what to do.
            frames: updated during the job.

        Raises:
            WorkerLostError: the process ended.
        """
        assert self._process.stdin is not None
        self.num_jobs += 1
        try:
            self._process.stdin.write(msgspec.json.encode(job) + b"\n")
            await self._process.stdin.drain()
        except OSError as error:
            raise WorkerLostError from error
        while isinstance(answer := _ANSWER.decode(await self._read_line()), FramesDone):
            frames.num_done, frames.num_total = answer.num_done, answer.num_total
        return answer

    async def kill(self) -> None:
        """Kill the process, wait for its end, and close its pipes."""
        assert self._process.stdin is not None
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            self._process.kill()
        self._process.stdin.close()
        await self._process.wait()

    async def _read_line(self) -> bytes:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise WorkerLostError
        return line
