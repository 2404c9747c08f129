"""The host's side of the socket: starts a task per request, streams what it yields, aborts what nobody wants.

Knows nothing of vLLM: what generates is handed in.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from model_executor.engine import (
    Delta,
    EngineBusyError,
    EngineError,
    EngineSettings,
    EngineStats,
    EngineUnavailableError,
    Prompt,
    SamplingParams,
)
from model_executor.fair_queue import CLIENT, FairQueue, QueueFullError
from model_executor.ipc import (
    WINDOW,
    Abort,
    Added,
    Channel,
    Ended,
    Failure,
    Generate,
    ReadStats,
    Ready,
    Stats,
    Taken,
)

_log = logging.getLogger(__name__)


class Generator(Protocol):
    """What a session needs of an engine."""

    def generate(self, request_id: str, prompt: Prompt, limits: SamplingParams) -> AsyncGenerator[Delta, None]:
        """As `engine.Engine.generate`, without the waiting room."""

    def stats(self) -> EngineStats:
        """A fresh reading, without waiting."""


class _Running:
    """One request: its task, and how much more may be sent."""

    def __init__(self) -> None:
        self.credit = asyncio.Semaphore(WINDOW)
        self.task: asyncio.Task[None]


class Session:
    """Serves one HTTP process until it hangs up.

    Args:
        channel: the host's end.
        generator: what generates.
        settings: how many sequences may run, for one client and in all, and how many requests may wait.
    """

    def __init__(self, channel: Channel, generator: Generator, settings: EngineSettings) -> None:
        """See the class."""
        self._channel = channel
        self._generator = generator
        self._places = FairQueue(
            settings.max_num_seqs + settings.num_guest_seqs,
            max_per_client=settings.max_num_seqs,
            max_waiting=settings.max_num_waiting,
        )
        self._running: dict[str, _Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # those of aborted requests included, which still clean up

    async def run(self) -> None:
        """Serve; returns when the other side has hung up and every request has been aborted.

        Raises:
            WireError: the other side does not speak the protocol.
        """
        await self._channel.send(Ready())
        try:
            while (message := await self._channel.receive_to_host()) is not None:
                match message:
                    case Generate():
                        self._start(message)
                    case Abort(request_id):
                        if running := self._running.pop(request_id, None):
                            running.task.cancel()
                    case Taken(request_id, num_additions):
                        if running := self._running.get(request_id):
                            for _ in range(num_additions):
                                running.credit.release()
                    case ReadStats():
                        self._channel.send_soon(Stats(self._stats()))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _stats(self) -> EngineStats:
        stats = self._generator.stats()
        return msgspec.structs.replace(stats, num_waiting=stats.num_waiting + self._places.num_waiting)

    def _start(self, message: Generate) -> None:
        if message.request_id in self._running:
            failure = Failure("failed", "two requests have the same id")
            self._channel.send_soon(Ended(message.request_id, failure))
            return
        running = self._running[message.request_id] = _Running()
        running.task = asyncio.create_task(self._serve(message, running.credit))
        self._tasks.add(running.task)
        running.task.add_done_callback(self._tasks.discard)

    async def _serve(self, message: Generate, credit: asyncio.Semaphore) -> None:
        CLIENT.set(message.client)
        failure: Failure | None = None
        try:
            async with self._places.place(message.limits.n):
                deltas = self._generator.generate(message.request_id, message.prompt, message.limits)
                async with contextlib.aclosing(deltas):
                    async for delta in deltas:
                        await credit.acquire()
                        await self._channel.send(Added(message.request_id, delta))
        except QueueFullError:
            failure = Failure.of(EngineBusyError("as many requests are waiting as may"))
        except EngineUnavailableError:
            return  # the host is about to hang up, which tells every request at once
        except EngineError as error:
            failure = Failure.of(error)
        except Exception:
            _log.exception("request %s failed", message.request_id)
            failure = Failure("failed", "an unexpected error in the engine host")
        if self._running.pop(message.request_id, None):  # an aborted request is gone already, and wants no answer
            self._channel.send_soon(Ended(message.request_id, failure))
