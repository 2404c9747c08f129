"""Supervises the engine process: starts it, restarts it when it is lost, gives up after repeated failed starts.

Of the messages it handles only `Ready`, `Impossible` and `Unready`; the others are passed on.
"""

import asyncio
import logging
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from model_executor.client.process import EngineProcess
from model_executor.client.scratch import sweep_scratch
from model_executor.client.standby import Standby
from model_executor.engine import EngineState
from model_executor.ipc import Channel, FromEngine, Impossible, ProtocolError, Ready, Unready

_log = logging.getLogger(__name__)

MAX_FAILED_STARTS = 3
"""Starts in a row that do not reach `Ready` after which the engine counts as failed."""
FIRST_PAUSE_S = 0.2
"""Before the first restart; doubles with each loss up to MAX_PAUSE_S."""
MAX_PAUSE_S = 30.0
SPAWN_PAUSE_S = 5.0
"""After a start for which the machine lacked something (open files, processes, memory, room): these may come back."""
SETTLED_S = 60.0
"""After this time in service, the next loss counts as the first one again."""
_DRAIN_S = 1.0
"""How long the remaining messages of an ended process are read."""


class Supervisor:
    """Starts and restarts the engine process.

    Args:
        command: as for `EngineProcess.spawn`.
        standby: a process that waits, its libraries imported, to replace a lost one; None: there is none. The owner
            closes it after this.
        replica: which of several engines this is, for the log.
        devices: the GPUs it gets, as in `Start`.
        start_timeout_s: maximum time from start to `Ready`.
        on_message: called with every message except `Ready`, `Impossible` and `Unready`.
        on_loss: called when a process is gone, ready or not.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        standby: Standby | None,
        replica: int,
        devices: str,
        start_timeout_s: float,
        on_message: Callable[[FromEngine], None],
        on_loss: Callable[[], None],
    ) -> None:
        self._command = command
        self._standby = standby
        self._devices = devices
        self._log = _ReplicaLog(_log, {"replica": replica})
        self._start_timeout_s = start_timeout_s
        self._on_message = on_message
        self._on_loss = on_loss
        self._ready_at_s: float | None = None
        self._has_served = False
        self._start_error: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._process: EngineProcess | None = None
        self._restarted = asyncio.Event()
        self.state = EngineState.LOADING
        """The engine's state."""
        self.failure: str | None = None
        """Why the state is FAILED."""
        self.channel: Channel | None = None
        """Set while the state is READY."""
        self.process_id: int | None = None
        """Of the process that is running or starting."""

    def start(self) -> None:
        """Start the first process without waiting for it."""
        sweep_scratch()
        self._task = asyncio.create_task(self._run())

    def give_up(self, reason: str) -> None:
        """Kill the process in service, which has become useless; another one is started as after any loss."""
        if self._process is not None:
            self._log.error("the engine process is killed: %s", reason)
            self._process.kill()

    async def restart(self) -> None:
        """Replace the process in service; returns once the next one is ready, or none will be."""
        if self._process is not None:
            self._restarted.clear()
            self._process.channel.close()
            await self._restarted.wait()

    async def close(self) -> None:
        """Stop the process and its child processes; returns when all are gone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            await self._keep_running()
        except Exception as error:
            self._log.exception("the engine is not supervised any more")
            self.failure = f"the supervision of the engine failed ({type(error).__name__})"
            self.state = EngineState.FAILED
        finally:
            self._restarted.set()

    async def _keep_running(self) -> None:
        num_losses = num_failed_starts = 0
        while self.failure is None:
            served_s = await self._run_once()
            if served_s is None:
                num_failed_starts += 1
                if num_failed_starts == MAX_FAILED_STARTS:
                    times = f"the engine failed to start {MAX_FAILED_STARTS} times in a row"
                    self.failure = self.failure or ": ".join(filter(None, (times, self._start_error)))
            else:
                num_failed_starts = 0
                self.state = EngineState.RESTARTING
                num_losses = 0 if served_s > SETTLED_S else num_losses
            if self.failure is None:
                await asyncio.sleep(min(FIRST_PAUSE_S * 2**num_losses, MAX_PAUSE_S))
                num_losses += 1
        self.state = EngineState.FAILED

    async def _run_once(self) -> float | None:
        """Run one process to its end: seconds in service, or None if it was never ready."""
        try:
            process = (self._standby and await self._standby.take()) or await EngineProcess.spawn(self._command)
        except OSError as error:
            self._log.error("the engine process cannot be started: %s", error)
            await asyncio.sleep(SPAWN_PAUSE_S)
            return None
        self._process = process
        self.process_id = process.process_id
        process.start(self._devices)
        reading = asyncio.create_task(self._read_messages(process.channel))
        try:
            await asyncio.wait({process.ended, reading}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({reading}, timeout=_DRAIN_S)
        finally:
            ready_at_s, self._ready_at_s = self._ready_at_s, None
            if ready_at_s is not None:
                self.state = EngineState.RESTARTING
            self.channel = None
            self._on_loss()
            reading.cancel()
            stopping = asyncio.create_task(process.stop())
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError:  # closed while a lost process was being stopped
                await stopping
                raise
            finally:
                self._process = self.process_id = None
        self._log.warning("the engine process has ended with status %s", stopping.result())
        return None if ready_at_s is None else asyncio.get_running_loop().time() - ready_at_s

    async def _read_messages(self, channel: Channel) -> None:
        """Handle messages until the process is gone, or has taken too long to get ready."""
        try:
            async with asyncio.timeout(self._start_timeout_s) as deadline:
                while (message := await channel.receive_from_engine()) is not None:
                    match message:
                        case Ready():
                            deadline.reschedule(None)
                            self._ready_at_s = asyncio.get_running_loop().time()
                            self._has_served, self._start_error = True, None
                            self.channel = channel
                            self.state = EngineState.READY
                            self._restarted.set()
                            if self._standby is not None:
                                self._standby.schedule()
                        case Unready(reason) | Impossible(reason) if self._has_served or isinstance(message, Unready):
                            # Of a model that has served, nothing is impossible.
                            self._start_error = reason
                            _log.error("the engine process has not started: %s", reason)
                        case Impossible(reason):
                            self.failure = reason
                        case _:
                            self._on_message(message)
        except TimeoutError:
            self._log.error("the engine was not ready after %.0f s", self._start_timeout_s)
        except ProtocolError:
            self._log.exception("the engine process violates the protocol")


class _ReplicaLog(logging.LoggerAdapter[logging.Logger]):
    """Says in every line which of several engines it is about."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the fields."""
        return msg, {**kwargs, "extra": {"fields": dict(self.extra or {})}}
