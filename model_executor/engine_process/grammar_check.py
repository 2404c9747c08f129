"""Compiles each grammar in a sandboxed child process first, so that none can stall or crash vLLM.

A schema of a few lines can take minutes and gigabytes to compile, or crash the process. Verdicts are cached. Clients
take turns, and a check that no request waits for any more is canceled.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import signal
import socket
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import msgspec

from model_executor.engine import EngineBusyError, Grammar, RequestFailedError, RequestRefusedError
from model_executor.engine_process.grammar_process import (
    CHECK,
    CLONE,
    DEADLINE_S,
    TOO_EXPENSIVE,
    fork_keeper,
)
from model_executor.fair_queue import FairQueue, QueueFullError
from model_executor.ipc import frame

MAX_VERDICTS = 4096
MAX_WAITING = 64
"""Grammars that may wait to be tried."""
FORK_TIMEOUT_S = 20
"""A keeper that has not forked a process after so long is lost."""

_log = logging.getLogger(__name__)


class _KeeperLostError(Exception):
    """A keeper is gone, and with it the grammar it was checking."""


@dataclass(eq=False, slots=True)
class _Trial:
    verdict: "asyncio.Task[str | None]"
    """What is wrong with the grammar, or None."""
    num_waiting: int = 0


class GrammarCheck:
    """Decides which grammars may reach vLLM; made by `fork`, used in one event loop after `start`."""

    def __init__(self, keepers: list[socket.socket]) -> None:
        self._keepers = keepers
        # Two at a time, of one client one: what takes long does not hold up the others.
        self._places = FairQueue(2, max_per_client=1, max_waiting=MAX_WAITING)
        self._trials: OrderedDict[bytes, _Trial] = OrderedDict()

    @classmethod
    def fork(cls, model_dir: Path) -> "GrammarCheck":
        """Start the processes; to be called before this one has threads.

        Args:
            model_dir: the model's directory, for its vocabulary.
        """
        check = cls([fork_keeper(model_dir)])
        check._clone()
        return check

    def start(self) -> None:
        """Watch over the keepers from now on."""
        for keeper in self._keepers:
            self._watch(keeper)

    @property
    def is_lost(self) -> bool:
        """Whether no process is left that could try a grammar."""
        return not self._keepers

    async def require(self, grammar: Grammar) -> None:
        """Return if `grammar` compiles within the limits.

        Raises:
            RequestRefusedError: it does not.
            EngineBusyError: too many wait to be tried.
            RequestFailedError: it cannot be tried any more.
        """
        key = hashlib.blake2b(msgspec.msgpack.encode((grammar.kind, grammar.value)), digest_size=16).digest()
        trial = self._trials.get(key)
        if trial is None:
            trial = self._trials[key] = _Trial(asyncio.create_task(self._in_turn(grammar)))
            if len(self._trials) > MAX_VERDICTS:
                self._trials.popitem(last=False)
        else:
            self._trials.move_to_end(key)
        trial.num_waiting += 1
        try:
            await asyncio.wait({trial.verdict})  # cancelling this leaves it running for others
        finally:
            trial.num_waiting -= 1
            if not trial.num_waiting and not trial.verdict.done():
                trial.verdict.cancel()
            is_verdict = trial.verdict.done() and not trial.verdict.cancelled() and trial.verdict.exception() is None
            if not is_verdict and not trial.num_waiting and self._trials.get(key) is trial:
                del self._trials[key]
        try:
            fault = trial.verdict.result()
        except QueueFullError as error:
            raise EngineBusyError("too many grammars and schemas wait to be tried") from error
        if fault is not None:
            raise RequestRefusedError(
                f"'{grammar.param or grammar.kind}' {fault}.", param=grammar.param, code="unsupported_grammar"
            )

    async def _in_turn(self, grammar: Grammar) -> str | None:
        async with self._places.place():
            while self._keepers:
                keeper = self._keepers[0]
                try:
                    return await _try(keeper, grammar)
                except _KeeperLostError:
                    self._lose(keeper)
        raise RequestFailedError("grammars cannot be checked any more")

    def _watch(self, keeper: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(keeper, self._lose, keeper)  # it says nothing until it is gone

    def _lose(self, keeper: socket.socket) -> None:
        """Replace a keeper that is gone by the child of another one."""
        if keeper not in self._keepers:
            return
        self._keepers.remove(keeper)
        asyncio.get_running_loop().remove_reader(keeper)
        keeper.close()
        _log.error("a process that tries grammars was lost, %d are left", len(self._keepers))
        if self._keepers and (clone := self._clone()) is not None:
            self._watch(clone)

    def _clone(self) -> socket.socket | None:
        """One keeper more; None where the one that should fork it is lost, too, which its socket will say."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._keepers[0], [CLONE], [theirs.fileno()])
            except OSError:
                ours.close()
                return None
        self._keepers.append(ours)
        return ours


async def _try(keeper: socket.socket, grammar: Grammar) -> str | None:
    """What is wrong with `grammar`, also if it ends the process that tries it. Cancelling this ends the process, too.

    Raises:
        _KeeperLostError: see the class.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            socket.send_fds(keeper, [CHECK], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise _KeeperLostError from error
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    try:
        try:
            async with asyncio.timeout(FORK_TIMEOUT_S):
                (process_id,) = struct.unpack(">I", await reader.readexactly(4))
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            raise _KeeperLostError from error
        try:
            async with asyncio.timeout(DEADLINE_S):
                writer.write(frame(msgspec.msgpack.encode(grammar)))
                (num_bytes,) = struct.unpack(">I", await reader.readexactly(4))
                return msgspec.msgpack.decode(await reader.readexactly(num_bytes), type=str | None)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            return TOO_EXPENSIVE
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
    finally:
        writer.close()
