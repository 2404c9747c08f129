"""An engine process without vLLM, run by `test_client.py`: real socket, session and messages, scripted answers.

Its behavior follows from the name of the model "directory".
"""

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator

from model_executor.engine import (
    Delta,
    EngineSettings,
    EngineStats,
    FinishReason,
    Prompt,
    RequestFailedError,
    RequestRefusedError,
    SamplingParams,
)
from model_executor.engine_process.session import Session
from model_executor.ipc import Channel, Impossible, Unready, encode, wait_for_start

SLOW_S = 1.0
"""Before the first delta of a slow request."""


class Scripted:
    """Yields one delta per requested token; the first prompt id chooses what else happens."""

    def __init__(self) -> None:
        self.num_yielded = 0
        self.num_running = 0

    async def generate(self, request_id: str, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        match prompt.token_ids[0]:
            case 1:
                raise RequestRefusedError("no such thing", "temperature", "a_code")
            case 2:
                raise RequestFailedError("it gave up")
            case 3:
                raise ZeroDivisionError
            case 4:
                os._exit(9)
        self.num_running += 1
        try:
            if prompt.token_ids[0] == 5:
                await asyncio.sleep(SLOW_S)
            for number in range(params.max_tokens):
                await asyncio.sleep(0)
                self.num_yielded += 1
                finish: FinishReason | None = "length" if number == params.max_tokens - 1 else None
                yield Delta(0, f"{number} ", [number], None, finish)
        finally:
            self.num_running -= 1

    def stats(self) -> EngineStats:
        return EngineStats(num_running=self.num_running, generation_tokens=self.num_yielded)


async def serve(end: socket.socket, settings: EngineSettings) -> None:
    """Serve like the real engine process."""
    session = Session(await Channel.open(end), Scripted(), settings)
    await session.run()


def main() -> None:
    """Behave as the model's name says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--shared-memory")
    parser.add_argument("--settings", type=EngineSettings.model_validate_json)
    parser.add_argument("--socket", type=int)
    arguments = parser.parse_args()
    end = socket.socket(fileno=arguments.socket)
    if not wait_for_start(end):
        sys.exit(0)
    match arguments.model:
        case "impossible":
            end.sendall(encode(Impossible("the model is a fish")))
            sys.exit(3)
        case "unready":
            end.sendall(encode(Unready("the pond is dry")))
            sys.exit(6)
        case "crashes":
            sys.exit(1)
        case "never-ready":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.pause()
        case "babbles":
            end.sendall(b"\0\0\0\4what")
            signal.pause()
        case "leaves-children":
            os.system("trap '' TERM; sleep 1000 &")  # deaf to SIGTERM, as a child of a deaf shell
    asyncio.run(serve(end, arguments.settings))


if __name__ == "__main__":
    main()
