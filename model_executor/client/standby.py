"""The warm spare: a host that has already imported torch and vLLM, and waits for the one in service to be lost.

It holds no weights; it holds some hundred megabytes of code. One that dies while it waits is not replaced before the
next start, which then pays the imports itself.
"""

import asyncio
import logging
from collections.abc import Sequence

from model_executor.client.process import EngineProcess

_log = logging.getLogger(__name__)

SPARE_DELAY_S = 5.0
"""From a host's getting ready to the spare's start, so that it does not compete with the first requests."""


class Standby:
    """At most one waiting host.

    Args:
        command: as of `EngineProcess.spawn`.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._planned: asyncio.TimerHandle | None = None
        self._made: asyncio.Task[EngineProcess] | None = None

    def plan(self) -> None:
        """Have one before long."""
        self._planned = asyncio.get_running_loop().call_later(SPARE_DELAY_S, self._make)

    async def take(self) -> EngineProcess | None:
        """The waiting host, which is the caller's from now on; None if there is none."""
        if self._planned is not None:
            self._planned.cancel()
        if self._made is None:
            return None
        await asyncio.wait({self._made})  # a bare await would cancel the making with its waiter
        made, self._made = self._made, None
        if (error := made.exception()) is not None:
            _log.warning("there is no warm spare: %s", error)
            return None
        host = made.result()
        if not host.ended.done():
            return host
        _log.warning("the warm spare has ended with status %s", await host.stop())
        return None

    def _make(self) -> None:
        self._made = asyncio.create_task(EngineProcess.spawn(self._command))
