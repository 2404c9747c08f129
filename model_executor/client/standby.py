"""The warm standby: an engine process that has imported torch and vLLM and waits to replace a lost one.

It holds no weights, only some hundred megabytes of code. One that dies while it waits is replaced.
"""

import asyncio
import logging
from collections.abc import Sequence

from model_executor.client.process import EngineProcess

_log = logging.getLogger(__name__)

STANDBY_DELAY_S = 5.0
"""From the engine's `Ready` to the standby's start, so that it does not compete with the first requests; also from the
loss of a standby to the start of the next one."""


class Standby:
    """At most one waiting engine process.

    Args:
        command: as for `EngineProcess.spawn`.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._taking = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._spawning: asyncio.Task[EngineProcess] | None = None
        self._stopping: set[asyncio.Task[int]] = set()

    @property
    def num_ready(self) -> int:
        """1 while a process waits, else 0."""
        task = self._spawning
        is_ready = task is not None and task.done() and not task.exception() and not task.result().ended.done()
        return int(is_ready)

    def schedule(self) -> None:
        """Start one after `STANDBY_DELAY_S`, unless there is one or soon will be."""
        if self._timer is None and self._spawning is None:
            self._timer = asyncio.get_running_loop().call_later(STANDBY_DELAY_S, self._spawn)

    async def take(self) -> EngineProcess | None:
        """The waiting process, which the caller owns from now on; None if there is none."""
        async with self._taking:
            return await self._take()

    async def close(self) -> None:
        """Stop the waiting process; nobody may take one any more."""
        if process := await self.take():
            await process.stop()

    async def _take(self) -> EngineProcess | None:
        self._unschedule()
        spawning = self._spawning
        if spawning is not None:
            await asyncio.wait({spawning})  # a bare await would cancel the spawning together with this task
            self._unschedule()  # another one, if this one could not be started
        self._spawning = None
        if self._stopping:
            await asyncio.wait(self._stopping)
        if spawning is None or spawning.exception() is not None:
            return None
        process = spawning.result()
        if not process.ended.done():
            return process
        _log.warning("the warm standby has ended with status %s", await process.stop())
        return None

    def _spawn(self) -> None:
        self._timer = None
        self._spawning = asyncio.create_task(EngineProcess.spawn(self._command))
        self._spawning.add_done_callback(self._watch)

    def _watch(self, spawning: "asyncio.Task[EngineProcess]") -> None:
        """A process has been started, or could not be."""
        if (error := spawning.exception()) is None:
            process = spawning.result()
            process.ended.add_done_callback(lambda _: self._replace(spawning, process))
        else:
            _log.warning("the warm standby cannot be started: %s", error)
            if self._spawning is spawning:
                self._spawning = None
                self.schedule()

    def _replace(self, spawning: "asyncio.Task[EngineProcess]", process: EngineProcess) -> None:
        """A process has ended; if it was still waiting, another one takes its place."""
        if self._spawning is not spawning:
            return
        _log.warning("the warm standby has ended and is replaced")
        self._spawning = None
        stopping = asyncio.create_task(process.stop())
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)
        self.schedule()

    def _unschedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
