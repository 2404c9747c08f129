"""The engine process's side of the socket: runs one task per request, streams its deltas, aborts it on demand.

Does not depend on vLLM: the generator is passed in.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from model_executor import ipc
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

_log = logging.getLogger(__name__)


class Generator(Protocol):
    """The part of an engine that a session needs."""

    def generate(self, request_id: str, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """As `engine.Engine.generate`, without a limit on waiting requests."""

    def stats(self) -> EngineStats:
        """The current statistics, without waiting."""


class _RunningRequest:
    """A request's task, and how many deltas may be sent before the next acknowledgment."""

    def __init__(self) -> None:
        self.credit = asyncio.Semaphore(ipc.WINDOW)
        self.task: asyncio.Task[None]


class Session:
    """Serves one HTTP process until it closes the socket.

    Args:
        channel: this process's end.
        generator: generates the answers.
        settings: how many sequences may run, for one client and in total, and how many requests may wait;
            `max_num_seqs` must be set.
    """

    def __init__(self, channel: ipc.Channel, generator: Generator, settings: EngineSettings) -> None:
        self._channel = channel
        self._generator = generator
        assert settings.max_num_seqs is not None
        self._queue = FairQueue(
            settings.max_num_seqs + settings.num_guest_seqs,
            max_per_client=settings.max_num_seqs,
            max_waiting=settings.max_num_waiting,
        )
        self._running: dict[str, _RunningRequest] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # those of aborted requests included, which still clean up

    async def run(self) -> None:
        """Serve; returns when the HTTP process has closed the socket and every request has been aborted.

        Raises:
            ProtocolError: the HTTP process has sent something that is not a message.
        """
        await self._channel.send(ipc.Ready())
        try:
            while (message := await self._channel.receive_to_engine()) is not None:
                match message:
                    case ipc.Generate():
                        self._start(message)
                    case ipc.Abort(request_id):
                        if running := self._running.pop(request_id, None):
                            running.task.cancel()
                    case ipc.Acknowledge(request_id, num_deltas):
                        if running := self._running.get(request_id):
                            for _ in range(num_deltas):
                                running.credit.release()
                    case ipc.ReadStats():
                        self._channel.send_soon(ipc.Stats(self._stats()))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _stats(self) -> EngineStats:
        stats = self._generator.stats()
        return msgspec.structs.replace(stats, num_waiting=stats.num_waiting + self._queue.num_waiting)

    def _start(self, message: ipc.Generate) -> None:
        if message.request_id in self._running:
            failure = ipc.Failure("failed", "two requests have the same id")
            self._channel.send_soon(ipc.Ended(message.request_id, failure))
            return
        running = self._running[message.request_id] = _RunningRequest()
        running.task = asyncio.create_task(self._serve(message, running.credit))
        self._tasks.add(running.task)
        running.task.add_done_callback(self._tasks.discard)

    async def _serve(self, message: ipc.Generate, credit: asyncio.Semaphore) -> None:
        CLIENT.set(message.client)
        failure: ipc.Failure | None = None
        try:
            async with self._queue.place(message.params.n):
                deltas = self._generator.generate(message.request_id, message.prompt, message.params)
                async with contextlib.aclosing(deltas):
                    async for delta in deltas:
                        await credit.acquire()
                        await self._channel.send(ipc.Generated(message.request_id, delta))
        except QueueFullError:
            failure = ipc.Failure.of(EngineBusyError("the queue of waiting requests is full"))
        except EngineUnavailableError:
            return  # this process is about to close the socket, which fails every request at once
        except EngineError as error:
            failure = ipc.Failure.of(error)
        except Exception:
            _log.exception("request %s failed", message.request_id)
            failure = ipc.Failure("failed", "an unexpected error in the engine process")
        if self._running.pop(message.request_id, None):  # an aborted request has been removed, and needs no reply
            self._channel.send_soon(ipc.Ended(message.request_id, failure))
