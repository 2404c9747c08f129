"""The warm standby: an engine process that has imported torch and vLLM and waits to replace a lost one.

It holds no weights, only some hundred megabytes of code. One that dies while it waits is not replaced before the next
start, which then has to do the imports itself.
"""

import asyncio
import logging
from collections.abc import Sequence

from model_executor.client.process import EngineProcess

_log = logging.getLogger(__name__)

STANDBY_DELAY_S = 5.0
"""From the engine's `Ready` to the standby's start, so that it does not compete with the first requests."""


class Standby:
    """At most one waiting engine process.

    Args:
        command: as for `EngineProcess.spawn`.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._timer: asyncio.TimerHandle | None = None
        self._spawning: asyncio.Task[EngineProcess] | None = None

    def schedule(self) -> None:
        """Start one after `STANDBY_DELAY_S`."""
        self._timer = asyncio.get_running_loop().call_later(STANDBY_DELAY_S, self._spawn)

    async def take(self) -> EngineProcess | None:
        """The waiting process, which the caller owns from now on; None if there is none."""
        if self._timer is not None:
            self._timer.cancel()
        if self._spawning is None:
            return None
        await asyncio.wait({self._spawning})  # a bare await would cancel the spawning together with this task
        spawned, self._spawning = self._spawning, None
        if (error := spawned.exception()) is not None:
            _log.warning("the warm standby cannot be started: %s", error)
            return None
        process = spawned.result()
        if not process.ended.done():
            return process
        _log.warning("the warm standby has ended with status %s", await process.stop())
        return None

    def _spawn(self) -> None:
        self._spawning = asyncio.create_task(EngineProcess.spawn(self._command))
