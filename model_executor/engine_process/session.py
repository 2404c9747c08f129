"""The host's side of the socket: starts a task per request, streams what it yields, aborts what nobody wants.

Knows nothing of vLLM: what generates is handed in.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Protocol

from model_executor.engine import (
    Delta,
    EngineBusyError,
    EngineError,
    EngineStats,
    EngineUnavailableError,
    Prompt,
    SamplingParams,
)
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

    def __init__(self, num_sequences: int) -> None:
        self.num_sequences = num_sequences
        self.credit = asyncio.Semaphore(WINDOW)
        self.task: asyncio.Task[None]


class Session:
    """Serves one HTTP process until it hangs up.

    Args:
        channel: the host's end.
        generator: what generates.
        max_num_sequences: sequences that may run and wait together; a request beyond them is refused, unless it is
            the only one.
    """

    def __init__(self, channel: Channel, generator: Generator, max_num_sequences: int) -> None:
        self._channel = channel
        self._generator = generator
        self._max_num_sequences = max_num_sequences
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
                        self._channel.send_soon(Stats(self._generator.stats()))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, message: Generate) -> None:
        num_sequences = message.limits.n
        open_sequences = sum(running.num_sequences for running in self._running.values())
        if message.request_id in self._running:
            failure = Failure("failed", "two requests have the same id")
            self._channel.send_soon(Ended(message.request_id, failure))
        elif self._running and open_sequences + num_sequences > self._max_num_sequences:
            busy = EngineBusyError(f"{open_sequences} sequences are running or waiting, as many as may")
            self._channel.send_soon(Ended(message.request_id, Failure.of(busy)))
        else:
            running = self._running[message.request_id] = _Running(num_sequences)
            running.task = asyncio.create_task(self._serve(message, running.credit))
            self._tasks.add(running.task)
            running.task.add_done_callback(self._tasks.discard)

    async def _serve(self, message: Generate, credit: asyncio.Semaphore) -> None:
        failure: Failure | None = None
        try:
            deltas = self._generator.generate(message.request_id, message.prompt, message.limits)
            async with contextlib.aclosing(deltas):
                async for delta in deltas:
                    await credit.acquire()
                    await self._channel.send(Added(message.request_id, delta))
        except EngineUnavailableError:
            return  # the host is about to hang up, which tells every request at once
        except EngineError as error:
            failure = Failure.of(error)
        except Exception:
            _log.exception("request %s failed", message.request_id)
            failure = Failure("failed", "an unexpected error in the engine host")
        if self._running.pop(message.request_id, None):  # an aborted request is gone already, and wants no answer
            self._channel.send_soon(Ended(message.request_id, failure))
