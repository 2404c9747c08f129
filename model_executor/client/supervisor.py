"""Keeps one engine-host process alive: starts it, notices its end, starts it again, gives up when that is hopeless.

Does not know what is said over the socket beyond `Ready` and `Impossible`.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence

from model_executor.client.process import EngineProcess
from model_executor.client.scratch import sweep_scratch
from model_executor.client.standby import Standby
from model_executor.engine import EngineState
from model_executor.ipc import Channel, FromHost, Impossible, Ready, WireError

_log = logging.getLogger(__name__)

MAX_FAILED_STARTS = 3
"""Starts in a row without getting ready after which the engine counts as failed."""
FIRST_PAUSE_S = 0.2
"""Before the first new start; doubles with each loss up to MAX_PAUSE_S."""
MAX_PAUSE_S = 30.0
SPAWN_PAUSE_S = 5.0
"""After a start for which the machine lacked something (open files, processes, memory, room): these may come back."""
SETTLED_S = 60.0
"""A host that has served this long is not blamed for earlier losses."""
_LAST_WORDS_S = 1.0
"""What a host that has ended may still have in the socket is read for so long."""


class Supervisor:
    """The life of the host process.

    Args:
        module: what to run, as `python -m module ... --socket N`.
        arguments: between the module and the socket.
        start_timeout_s: longest time from start to `Ready`.
        warm_spare: whether a second host waits, its imports done, to take over from a lost one.
        on_message: gets every message but `Ready` and `Impossible`.
        on_loss: called when a host is gone, ready or not.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        start_timeout_s: float,
        warm_spare: bool,
        on_message: Callable[[FromHost], None],
        on_loss: Callable[[], None],
    ) -> None:
        """See the class."""
        self._command = (sys.executable, "-m", module, *arguments, "--socket")
        self._start_timeout_s = start_timeout_s
        self._warm_spare = warm_spare
        self._spare = Standby(self._command)
        self._on_message = on_message
        self._on_loss = on_loss
        self._ready_at_s: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._host: EngineProcess | None = None
        self.state = EngineState.LOADING
        """Where the host is in its life."""
        self.failure: str | None = None
        """Why the state is FAILED."""
        self.channel: Channel | None = None
        """Set while the state is READY."""
        self.process_id: int | None = None
        """Of the host that is running or starting."""

    def start(self) -> None:
        """Start the first host without waiting for it."""
        sweep_scratch()
        self._task = asyncio.create_task(self._run())

    @property
    def num_standby(self) -> int:
        """Hosts that wait to take over."""
        return self._spare.num_ready

    def give_up(self, reason: str) -> None:
        """Lose the host that serves, which is of no use any more; the next one is started as after any loss."""
        if self._host is not None:
            _log.error("the engine host is ended: %s", reason)
            self._host.kill()

    async def close(self) -> None:
        """Stop the host and everything it started; returns when nothing is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            await self._live()
        except Exception as error:
            _log.exception("the engine is not supervised any more")
            self.failure = f"the supervision of the engine failed ({type(error).__name__})"
            self.state = EngineState.FAILED
        finally:
            if spare := await self._spare.take():
                await spare.stop()

    async def _live(self) -> None:
        num_losses = num_failed_starts = 0
        while self.failure is None:
            served_s = await self._live_once()
            if served_s is None:
                num_failed_starts += 1
                if num_failed_starts == MAX_FAILED_STARTS:
                    self.failure = self.failure or f"the engine failed to start {MAX_FAILED_STARTS} times in a row"
            else:
                num_failed_starts = 0
                self.state = EngineState.RESTARTING
                num_losses = 0 if served_s > SETTLED_S else num_losses
            if self.failure is None:
                await asyncio.sleep(min(FIRST_PAUSE_S * 2**num_losses, MAX_PAUSE_S))
                num_losses += 1
        self.state = EngineState.FAILED

    async def _live_once(self) -> float | None:
        """Run one host to its end: seconds it served, or None if it never got ready."""
        try:
            host = await self._spare.take() or await EngineProcess.spawn(self._command)
        except OSError as error:
            _log.error("the engine host cannot be started: %s", error)
            await asyncio.sleep(SPAWN_PAUSE_S)
            return None
        self._host = host
        self.process_id = host.process_id
        host.start()
        attending = asyncio.create_task(self._attend(host.channel))
        try:
            await asyncio.wait({host.ended, attending}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({attending}, timeout=_LAST_WORDS_S)
        finally:
            ready_at_s, self._ready_at_s = self._ready_at_s, None
            if ready_at_s is not None:
                self.state = EngineState.RESTARTING
            self.channel = None
            self._on_loss()
            attending.cancel()
            stopping = asyncio.create_task(host.stop())
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError:  # closed while a lost host was being cleared away
                await stopping
                raise
            finally:
                self._host = self.process_id = None
        _log.warning("the engine host has ended with status %s", stopping.result())
        return None if ready_at_s is None else asyncio.get_running_loop().time() - ready_at_s

    async def _attend(self, channel: Channel) -> None:
        """Read what the host says until it is gone, or has taken too long to get ready."""
        try:
            async with asyncio.timeout(self._start_timeout_s) as deadline:
                while (message := await channel.receive_from_host()) is not None:
                    match message:
                        case Ready():
                            deadline.reschedule(None)
                            self._ready_at_s = asyncio.get_running_loop().time()
                            self.channel = channel
                            self.state = EngineState.READY
                            if self._warm_spare:
                                self._spare.plan()
                        case Impossible(reason):
                            self.failure = reason
                        case _:
                            self._on_message(message)
        except TimeoutError:
            _log.error("the engine was not ready after %.0f s", self._start_timeout_s)
        except WireError:
            _log.exception("the engine host does not speak the protocol")
