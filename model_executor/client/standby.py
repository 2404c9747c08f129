"""The warm spare: a host that has already imported torch and vLLM, and waits for the one in service to be lost.

It holds no weights; it holds some hundred megabytes of code. One that dies while it waits is followed by another.
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
        """See the class."""
        self._command = command
        self._planned: asyncio.TimerHandle | None = None
        self._made: asyncio.Task[EngineProcess] | None = None
        self._clearing: set[asyncio.Task[int]] = set()

    @property
    def num_ready(self) -> int:
        """1 while a host waits, else 0."""
        made = self._made
        is_ready = made is not None and made.done() and not made.exception() and not made.result().ended.done()
        return int(is_ready)

    def plan(self) -> None:
        """Have one before long."""
        self._planned = asyncio.get_running_loop().call_later(SPARE_DELAY_S, self._make)

    async def take(self) -> EngineProcess | None:
        """The waiting host, which is the caller's from now on; None if there is none."""
        self._unplan()
        made = self._made
        if made is not None:
            await asyncio.wait({made})  # a bare await would cancel the making with its waiter
            self._unplan()  # another one, if this one could not be made
        self._made = None
        if self._clearing:
            await asyncio.wait(self._clearing)
        if made is None or made.exception() is not None:
            return None
        host = made.result()
        if not host.ended.done():
            return host
        _log.warning("the warm spare has ended with status %s", await host.stop())
        return None

    def _make(self) -> None:
        self._made = asyncio.create_task(EngineProcess.spawn(self._command))
        self._made.add_done_callback(self._attend)

    def _attend(self, made: "asyncio.Task[EngineProcess]") -> None:
        """One was made, or could not be."""
        if (error := made.exception()) is None:
            host = made.result()
            host.ended.add_done_callback(lambda _: self._replace(made, host))
        else:
            _log.warning("there is no warm spare: %s", error)
            if self._made is made:
                self._made = None
                self.plan()

    def _replace(self, made: "asyncio.Task[EngineProcess]", host: EngineProcess) -> None:
        """A host has ended; where it was still waiting, another one takes its place."""
        if self._made is not made:
            return
        _log.warning("the warm spare has ended and is replaced")
        self._made = None
        clearing = asyncio.create_task(host.stop())
        self._clearing.add(clearing)
        clearing.add_done_callback(self._clearing.discard)
        self.plan()

    def _unplan(self) -> None:
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None
