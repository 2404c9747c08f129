"""Several engines that answer as one: requests with the same media meet the same engine, a lost engine's are moved.

Each engine is a whole `EngineClient`, with its own process, supervision and caches; prepared media lie in shared memory
for all. One standby waits for the first of them that is lost.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from pathlib import Path

from model_executor.client.devices import engine_devices
from model_executor.client.engine_client import PROGRAM, EngineClient, engine_command
from model_executor.client.placement import choose, placement_key
from model_executor.client.pool_stats import Reading, total
from model_executor.client.standby import Standby
from model_executor.engine import (
    SHARED_MEMORY,
    Delta,
    EngineBusyError,
    EngineSettings,
    EngineState,
    EngineStats,
    EngineUnavailableError,
    Prompt,
    ReplicaStats,
    SamplingParams,
)

MAX_LOSSES = 2
"""Engines one request may lose before it fails: a request that kills every engine must not meet them all."""
READING_S = 0.5
"""How long an engine is waited for when statistics are read; after that, its last ones are taken."""

_log = logging.getLogger(__name__)


class _Replica:
    """One engine, and what this process knows of it."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client
        self.num_running = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.is_draining = False
        self.reading = Reading()

    def enter(self) -> None:
        """A request has been given to it."""
        self.num_running += 1
        self.idle.clear()

    def leave(self) -> None:
        """A request has ended."""
        self.num_running -= 1
        if not self.num_running:
            self.idle.set()


class EnginePool:
    """Implements `engine.Engine` over as many engines as the settings say.

    Args:
        model_dir: the model's directory.
        settings: of each engine.
        shared_memory: the file system that holds prepared media.
        module: the engine process's program.

    Raises:
        CheckpointError: the model's configuration files are missing or malformed.
    """

    def __init__(
        self, model_dir: Path, settings: EngineSettings, *, shared_memory: Path = SHARED_MEMORY, module: str = PROGRAM
    ) -> None:
        command = engine_command(model_dir, settings, shared_memory, module)
        self._standby = Standby(command) if settings.warm_standby else None
        self._replicas = [
            _Replica(
                EngineClient(
                    model_dir,
                    settings,
                    shared_memory=shared_memory,
                    module=module,
                    pooled=(number, devices, self._standby),
                )
            )
            for number, devices in enumerate(engine_devices(settings))
        ]
        self._restarting = asyncio.Lock()

    @property
    def clients(self) -> list[EngineClient]:
        """Every engine, by its number."""
        return [replica.client for replica in self._replicas]

    @property
    def state(self) -> EngineState:
        """READY while any engine is; FAILED once all are."""
        states = {client.state for client in self.clients}
        order = (EngineState.READY, EngineState.RESTARTING, EngineState.LOADING, EngineState.FAILED)
        return next(state for state in order if state in states)

    @property
    def failure(self) -> str | None:
        """Why the state is FAILED; None in any other state."""
        return self.clients[0].failure if self.state is EngineState.FAILED else None

    @property
    def max_model_len(self) -> int:
        """Context length in tokens, prompt and answer together; known before an engine is ready."""
        return self.clients[0].max_model_len

    async def start(self) -> None:
        """Start the engine processes without waiting until they are ready; call once."""
        for client in self.clients:
            await client.start()

    async def close(self) -> None:
        """Stop the engine processes; returns when none of theirs is left."""
        await asyncio.gather(*(client.close() for client in self.clients))
        if self._standby is not None:
            await self._standby.close()

    async def generate(self, request_id: str, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """As `engine.Engine.generate`. Until its first delta, a request that loses its engine goes to another one."""
        key = placement_key(prompt)
        refusal: EngineBusyError | EngineUnavailableError | None = None
        tried: set[int] = set()
        num_lost = 0
        while num_lost < MAX_LOSSES and (num_running := self._eligible(tried)):
            number = choose(key, num_running)
            tried.add(number)
            replica = self._replicas[number]
            has_begun = False
            replica.enter()
            try:
                async with contextlib.aclosing(replica.client.generate(request_id, prompt, params)) as deltas:
                    async for delta in deltas:
                        has_begun = True
                        yield delta
                return
            except (EngineBusyError, EngineUnavailableError) as error:
                if has_begun:
                    raise
                refusal = error
                num_lost += isinstance(error, EngineUnavailableError)
            finally:
                replica.leave()
        raise refusal or EngineUnavailableError("the engine is not ready", self.state)

    async def stats(self) -> EngineStats:
        """As `engine.Engine.stats`: the sum over all engines, and each one's part."""
        if self.state is not EngineState.READY:
            raise EngineUnavailableError("the engine is not ready", self.state)
        await asyncio.gather(*map(_read, self._replicas))
        parts = tuple(ReplicaStats(replica.client.state, replica.reading.stats) for replica in self._replicas)
        return total(parts, num_standby=self._standby.num_ready if self._standby else 0)

    async def restart(self, drain_s: float) -> None:
        """Replace the engine processes one after another, while the others answer.

        Args:
            drain_s: time that the running requests of each have to end.
        """
        if len(self._replicas) == 1:
            _log.error("a single engine is not restarted while it serves; TESSERA_ENGINE__REPLICAS=2 makes two")
            return
        async with self._restarting:
            for number, replica in enumerate(self._replicas):
                replica.is_draining = True
                try:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(drain_s):
                            await replica.idle.wait()
                    await replica.client.restart()
                finally:
                    replica.is_draining = False
                if replica.client.state is not EngineState.READY:
                    _log.error("engine %d does not come back; the others are not restarted", number)
                    return
        _log.info("all %d engines have been restarted", len(self._replicas))

    def _eligible(self, tried: set[int]) -> dict[int, int]:
        """Requests running on each engine that may get one more: those that drain only if there is no other."""
        ready = {
            number: replica
            for number, replica in enumerate(self._replicas)
            if replica.client.state is EngineState.READY and number not in tried
        }
        staying = {number: replica for number, replica in ready.items() if not replica.is_draining}
        return {number: replica.num_running for number, replica in (staying or ready).items()}


async def _read(replica: _Replica) -> None:
    """Read an engine's statistics; one that is lost or slow keeps its last ones."""
    try:
        async with asyncio.timeout(READING_S):
            replica.reading.update(await replica.client.stats())
    except EngineUnavailableError:
        replica.reading.lose()
    except TimeoutError:
        return
