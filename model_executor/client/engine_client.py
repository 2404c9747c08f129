"""The engine as the HTTP process uses it: forwards requests to the engine process over a socket.

Imports neither torch nor vllm, and never blocks: when the engine process is lost, its requests fail at once and the
supervisor restarts it.
"""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec

from model_executor import ipc
from model_executor.checkpoint.config import read_checkpoint
from model_executor.client.standby import Standby
from model_executor.client.supervisor import Supervisor
from model_executor.engine import (
    SHARED_MEMORY,
    Delta,
    EngineSettings,
    EngineState,
    EngineStats,
    EngineUnavailableError,
    Prompt,
    SamplingParams,
)
from model_executor.fair_queue import CLIENT

HEARTBEAT_S = 5.0
"""Interval between two requests for a sign of life."""
SILENCE_S = 30.0
"""An engine process that has not replied for so long is lost."""
_ACKNOWLEDGE_EVERY = ipc.WINDOW // 2
"""Deltas between two acknowledgments."""
PROGRAM = "model_executor.engine_process.main"
"""The engine process's module."""


def engine_command(model_dir: Path, settings: EngineSettings, shared_memory: Path, module: str) -> tuple[str, ...]:
    """How to start an engine process, but for the number of its socket."""
    directories = ("--model", str(model_dir), "--shared-memory", str(shared_memory))
    return (sys.executable, "-m", module, *directories, "--settings", settings.model_dump_json(), "--socket")


class EngineClient:
    """Implements `engine.Engine` over the engine process's socket.

    Args:
        model_dir: the model's directory.
        settings: of the engine.
        shared_memory: the file system that holds prepared media; the engine reads no other file.
        module: the engine process's program.
        pooled: of one engine of several: its number, its GPUs as in `ipc.Start`, and the standby of all, if there is
            one. None: the only engine, with a standby of its own if the settings say so.

    Raises:
        CheckpointError: the model's configuration files are missing or malformed.
    """

    def __init__(
        self,
        model_dir: Path,
        settings: EngineSettings,
        *,
        shared_memory: Path = SHARED_MEMORY,
        module: str = PROGRAM,
        pooled: tuple[int, str, Standby | None] | None = None,
    ) -> None:
        self._max_model_len = settings.max_model_len or read_checkpoint(model_dir).max_model_len
        self._inboxes: dict[str, asyncio.Queue[ipc.Generated | ipc.Ended | None]] = {}
        self._pending_stats: deque[asyncio.Future[EngineStats]] = deque()
        self._heartbeat: asyncio.Task[None] | None = None
        command = engine_command(model_dir, settings, shared_memory, module)
        self._own_standby = Standby(command) if pooled is None and settings.warm_standby else None
        replica, devices, standby = pooled or (0, "", self._own_standby)
        self._supervisor = Supervisor(
            command,
            standby=standby,
            replica=replica,
            devices=devices,
            start_timeout_s=settings.start_timeout_s,
            on_message=self._deliver,
            on_loss=self._fail_all,
        )

    @property
    def state(self) -> EngineState:
        """The engine's state, without waiting."""
        return self._supervisor.state

    @property
    def failure(self) -> str | None:
        """Why the state is FAILED; None in any other state."""
        return self._supervisor.failure

    @property
    def max_model_len(self) -> int:
        """Context length in tokens, prompt and answer together; known before the engine is ready."""
        return self._max_model_len

    @property
    def process_id(self) -> int | None:
        """Of the engine process; None while there is none."""
        return self._supervisor.process_id

    async def start(self) -> None:
        """Start the engine process without waiting until it is ready; call once."""
        self._supervisor.start()
        self._heartbeat = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop the engine process; returns when none of its processes is left."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            await asyncio.wait({self._heartbeat})
        await self._supervisor.close()
        if self._own_standby is not None:
            await self._own_standby.close()

    async def restart(self) -> None:
        """Replace the engine process; its requests are lost. Returns once the next one is ready, or none will be."""
        await self._supervisor.restart()

    async def generate(self, request_id: str, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """As `engine.Engine.generate`."""
        channel = self._channel()
        inbox = self._inboxes[request_id] = asyncio.Queue()
        ended = False
        num_unacknowledged = 0
        try:
            await channel.send(ipc.Generate(request_id, prompt, params, CLIENT.get()))
            while True:
                match await inbox.get():
                    case ipc.Generated(_, delta):
                        yield delta
                        num_unacknowledged += 1
                        if num_unacknowledged == _ACKNOWLEDGE_EVERY:
                            channel.send_soon(ipc.Acknowledge(request_id, num_unacknowledged))
                            num_unacknowledged = 0
                    case ipc.Ended(_, failure):
                        ended = True
                        if failure is not None:
                            raise failure.error()
                        return
                    case None:
                        ended = True
                        raise EngineUnavailableError("the engine was lost while generating", self.state)
        finally:
            del self._inboxes[request_id]
            if not ended:
                channel.send_soon(ipc.Abort(request_id))

    async def stats(self) -> EngineStats:
        """As `engine.Engine.stats`."""
        pending: asyncio.Future[EngineStats] = asyncio.get_running_loop().create_future()
        channel = self._channel()
        self._pending_stats.append(pending)  # the engine process replies in order
        channel.send_soon(ipc.ReadStats())
        num_standby = self._own_standby.num_ready if self._own_standby else 0
        return msgspec.structs.replace(await pending, num_standby=num_standby)

    async def _watch(self) -> None:
        """Ask the engine process for a sign of life, forever; kill it if it gives none."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            try:
                async with asyncio.timeout(SILENCE_S):
                    await self.stats()
            except EngineUnavailableError:
                continue
            except TimeoutError:
                self._supervisor.give_up(f"it has not replied for {SILENCE_S:.0f} s")

    def _channel(self) -> ipc.Channel:
        if self._supervisor.channel is None:
            raise EngineUnavailableError("the engine is not ready", self.state)
        return self._supervisor.channel

    def _deliver(self, message: ipc.FromEngine) -> None:
        match message:
            case ipc.Generated(request_id) | ipc.Ended(request_id):
                if inbox := self._inboxes.get(request_id):  # else it was aborted a moment ago
                    inbox.put_nowait(message)
            case ipc.Stats(stats):
                pending = self._pending_stats.popleft()
                if not pending.done():  # the waiting task may have been canceled
                    pending.set_result(stats)

    def _fail_all(self) -> None:
        for inbox in self._inboxes.values():
            inbox.put_nowait(None)
        while self._pending_stats:
            pending = self._pending_stats.popleft()
            if not pending.done():
                pending.set_exception(EngineUnavailableError("the engine was lost", self.state))
