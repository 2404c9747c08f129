"""The engine the HTTP process uses: forwards requests to the engine host over a socket, and keeps the host alive.

Imports neither torch nor vllm, and never blocks: a lost host fails its requests at once and is started again.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec

from model_executor.checkpoint.config import read_checkpoint
from model_executor.client.supervisor import Supervisor
from model_executor.engine import (
    Delta,
    EngineSettings,
    EngineState,
    EngineStats,
    EngineUnavailableError,
    Prompt,
    SamplingParams,
)
from model_executor.fair_queue import CLIENT
from model_executor.ipc import (
    WINDOW,
    Abort,
    Added,
    Channel,
    Ended,
    FromHost,
    Generate,
    ReadStats,
    Stats,
    Taken,
)

HEARTBEAT_S = 5.0
"""How often the host is asked for a sign of life."""
SILENCE_S = 30.0
"""A host that has not answered for so long is lost."""
SHARED_MEMORY = Path("/dev/shm")
_REPORT_EVERY = WINDOW // 2


class EngineClient:
    """Implements `engine.Engine` over the host's socket.

    Args:
        folder: the model folder.
        settings: of the engine.
        shared_memory: the file system below which prepared media lie; the engine reads no file elsewhere.
        module: the host program.

    Raises:
        CheckpointError: the folder's small files cannot be understood.
    """

    def __init__(
        self,
        folder: Path,
        settings: EngineSettings,
        *,
        shared_memory: Path = SHARED_MEMORY,
        module: str = "model_executor.engine_process.main",
    ) -> None:
        """See the class."""
        self._max_model_len = settings.max_model_len or read_checkpoint(folder).max_model_len
        self._inboxes: dict[str, asyncio.Queue[Added | Ended | None]] = {}
        self._readings: deque[asyncio.Future[EngineStats]] = deque()
        self._listening: asyncio.Task[None] | None = None
        arguments = ["--model", str(folder), "--shared-memory", str(shared_memory)]
        self._supervisor = Supervisor(
            module,
            [*arguments, "--settings", settings.model_dump_json()],
            start_timeout_s=settings.start_timeout_s,
            warm_spare=settings.warm_spare,
            on_message=self._deliver,
            on_loss=self._lose,
        )

    @property
    def state(self) -> EngineState:
        """Where the engine is in its life, without waiting."""
        return self._supervisor.state

    @property
    def failure(self) -> str | None:
        """Why the state is FAILED; None in any other."""
        return self._supervisor.failure

    @property
    def max_model_len(self) -> int:
        """Context length in tokens, prompt and answer together; known before the engine is ready."""
        return self._max_model_len

    @property
    def process_id(self) -> int | None:
        """Of the host, while there is one."""
        return self._supervisor.process_id

    async def start(self) -> None:
        """Start the host without waiting until it is ready; call once."""
        self._supervisor.start()
        self._listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        """Stop the host; returns when none of its processes is left."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening})
        await self._supervisor.close()

    async def generate(self, request_id: str, prompt: Prompt, limits: SamplingParams) -> AsyncGenerator[Delta, None]:
        """As `engine.Engine.generate`."""
        channel = self._channel()
        inbox = self._inboxes[request_id] = asyncio.Queue()
        ended = False
        num_unreported = 0
        try:
            await channel.send(Generate(request_id, prompt, limits, CLIENT.get()))
            while True:
                match await inbox.get():
                    case Added(_, delta):
                        yield delta
                        num_unreported += 1
                        if num_unreported == _REPORT_EVERY:
                            channel.send_soon(Taken(request_id, num_unreported))
                            num_unreported = 0
                    case Ended(_, failure):
                        ended = True
                        if failure is not None:
                            raise failure.error()
                        return
                    case None:
                        ended = True
                        raise EngineUnavailableError("the engine was lost while it answered", self.state)
        finally:
            del self._inboxes[request_id]
            if not ended:
                channel.send_soon(Abort(request_id))

    async def stats(self) -> EngineStats:
        """As `engine.Engine.stats`."""
        reading: asyncio.Future[EngineStats] = asyncio.get_running_loop().create_future()
        channel = self._channel()
        self._readings.append(reading)  # the host answers in order
        channel.send_soon(ReadStats())
        return msgspec.structs.replace(await reading, num_standby=self._supervisor.num_standby)

    async def _listen(self) -> None:
        """Ask the host for a sign of life for ever; one that gives none is lost."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            try:
                async with asyncio.timeout(SILENCE_S):
                    await self.stats()
            except EngineUnavailableError:
                continue
            except TimeoutError:
                self._supervisor.give_up(f"it has not answered for {SILENCE_S:.0f} s")

    def _channel(self) -> Channel:
        if self._supervisor.channel is None:
            raise EngineUnavailableError("the engine is not ready", self.state)
        return self._supervisor.channel

    def _deliver(self, message: FromHost) -> None:
        match message:
            case Added(request_id) | Ended(request_id):
                if inbox := self._inboxes.get(request_id):  # else it was aborted a moment ago
                    inbox.put_nowait(message)
            case Stats(stats):
                reading = self._readings.popleft()
                if not reading.done():  # its reader may have given up
                    reading.set_result(stats)

    def _lose(self) -> None:
        for inbox in self._inboxes.values():
            inbox.put_nowait(None)
        while self._readings:
            reading = self._readings.popleft()
            if not reading.done():
                reading.set_exception(EngineUnavailableError("the engine was lost", self.state))
