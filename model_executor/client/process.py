"""One engine-host process as its parent sees it: started, told to go, stopped together with whatever it has started.

Does not know what is said over the socket beyond `Start`, nor when a host should live: `supervisor.py` does.
"""

import asyncio
import contextlib
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence

from model_executor.client.scratch import ScratchFolder
from model_executor.ipc import Channel, Start

STOP_TIMEOUT_S = 10.0
"""What a host, and then what it has started, gets between SIGTERM and SIGKILL."""
_GROUP_POLL_S = 0.02
_GROUP_END_S = 2.0
"""What killed processes get to disappear."""


class EngineProcess:
    """Made by `spawn`; whoever has one must `stop` it, also when it has ended by itself."""

    def __init__(self, process: Process, channel: Channel, scratch: ScratchFolder) -> None:
        """See `spawn`."""
        self.channel = channel
        """Our end of the socket."""
        self.ended = asyncio.create_task(process.wait())
        """Done, with the exit status, once the host is gone."""
        self._process = process
        self._scratch = scratch

    @classmethod
    async def spawn(cls, command: Sequence[str]) -> "EngineProcess":
        """Start the process, which prepares itself as far as it can and then waits to be told to go.

        Args:
            command: the program and its arguments; the number of its end of the socket is added.

        Raises:
            OSError: the machine lacks what a process takes; nothing is left.
        """
        scratch = ScratchFolder()
        with contextlib.ExitStack() as undo:
            undo.callback(scratch.remove)
            ours, theirs = socket.socketpair()
            with theirs:
                channel = await Channel.open(ours)
                undo.callback(channel.close)
                end = theirs.fileno()
                # A session of its own: what it leaves behind can be found, and Ctrl-C does not reach it.
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
        """Of the host, which is its process group's too."""
        return self._process.pid

    def start(self) -> None:
        """Tell it to load the model and serve."""
        self.channel.send_soon(Start())

    def kill(self) -> None:
        """End the host and all of its process group at once; for one that does not listen any more."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process_id, signal.SIGKILL)

    async def stop(self) -> int:
        """Hang up, end the host, and then whatever is left of its process group; returns when that is gone.

        Gently first: what has to give shared memory back should get to it.

        Returns:
            The host's exit status.
        """
        self.channel.close()
        if not self.ended.done():
            self._process.terminate()
            await asyncio.wait({self.ended}, timeout=STOP_TIMEOUT_S)
        for kind, timeout_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, _GROUP_END_S)):
            if await _is_gone(self.process_id, kind, timeout_s):
                break
        status = await self.ended
        self._scratch.remove()
        return status


async def _is_gone(group: int, kind: signal.Signals, timeout_s: float) -> bool:
    """Signal a process group; whether it has disappeared in time. Who is not our child cannot be waited for."""
    try:
        os.killpg(group, kind)
        for _ in range(int(timeout_s / _GROUP_POLL_S)):
            await asyncio.sleep(_GROUP_POLL_S)
            os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False
