"""One engine process, seen from its parent: spawns it, sends `Start`, stops it together with its child processes.

Of the messages it knows only `Start`; when to start and stop is decided by `supervisor.py`.
"""

import asyncio
import contextlib
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence

from model_executor.client.scratch import ScratchDirectory
from model_executor.ipc import Channel, Start

STOP_TIMEOUT_S = 10.0
"""Time between SIGTERM and SIGKILL, for the engine process and then for its child processes."""
_GROUP_POLL_S = 0.02
_GROUP_END_S = 2.0
"""Time for killed processes to disappear."""


class EngineProcess:
    """A running engine process. Made by `spawn`; the owner must call `stop`, even if it has ended by itself."""

    def __init__(self, process: Process, channel: Channel, scratch: ScratchDirectory) -> None:
        self.channel = channel
        """Our end of the socket."""
        self.ended = asyncio.create_task(process.wait())
        """Finishes with the exit status once the process is gone."""
        self._process = process
        self._scratch = scratch

    @classmethod
    async def spawn(cls, command: Sequence[str]) -> "EngineProcess":
        """Start the process, which imports its libraries and then waits for `Start`.

        Args:
            command: the program and its arguments; the number of its end of the socket is added.

        Raises:
            OSError: the machine lacks what a process takes; nothing is left.
        """
        scratch = ScratchDirectory()
        with contextlib.ExitStack() as undo:
            undo.callback(scratch.remove)
            ours, theirs = socket.socketpair()
            with theirs:
                channel = await Channel.open(ours)
                undo.callback(channel.close)
                end = theirs.fileno()
                # A session of its own: leftover child processes can be found, and Ctrl-C does not reach it.
                process = await asyncio.create_subprocess_exec(
                    *command,
                    str(end),
                    stdin=DEVNULL,
                    pass_fds=[end],
                    start_new_session=True,
                    env={**os.environ, "TMPDIR": str(scratch.path)},
                )
            undo.pop_all()
        return cls(process, channel, scratch)

    @property
    def process_id(self) -> int:
        """Of the process, and also of its process group."""
        return self._process.pid

    def start(self, devices: str) -> None:
        """Make it load the model and serve; `devices` as in `Start`."""
        self.channel.send_soon(Start(devices))

    def kill(self) -> None:
        """Kill the process and its process group at once, for one that does not respond any more."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process_id, signal.SIGKILL)

    async def stop(self) -> int:
        """Close the socket, end the process, then the rest of its process group; returns when all are gone.

        SIGTERM comes first, so that child processes can free their shared memory.

        Returns:
            The exit status.
        """
        self.channel.close()
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                self._process.terminate()
            await asyncio.wait({self.ended}, timeout=STOP_TIMEOUT_S)
        for number, timeout_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, _GROUP_END_S)):
            if await _signal_group(self.process_id, number, timeout_s):
                break
        status = await self.ended
        self._scratch.remove()
        return status


async def _signal_group(group: int, number: signal.Signals, timeout_s: float) -> bool:
    """Signal a process group and poll until it is gone, since only own children can be waited for.

    Returns:
        Whether it is gone in time.
    """
    try:
        os.killpg(group, number)
        for _ in range(int(timeout_s / _GROUP_POLL_S)):
            await asyncio.sleep(_GROUP_POLL_S)
            os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False
