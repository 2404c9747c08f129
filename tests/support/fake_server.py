"""A whole HTTP server over a scripted engine, as a process of its own; settings come from the environment.

Each token takes `TOKEN_S`, so the length of an answer is the time it takes.
"""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

from model_executor.engine import Delta, Prompt, SamplingParams
from model_executor.processor.tokenizer import Tokenizer
from server.app import create_app
from server.core.json_log import configure_logging
from server.core.settings import Settings
from server.serve import Server, server_config
from tests.support.fakes import FakeEngine, FakeMedia, Step, opener

TOKEN_S = 0.02
BUNDLE = Path(__file__).parents[2] / "training" / "bundle"


def counting(_: Prompt, limits: SamplingParams) -> Iterator[Step]:
    """As many numbers as tokens are asked for."""
    for number in range(limits.max_tokens):
        yield TOKEN_S
        finish = "length" if number == limits.max_tokens - 1 else None
        yield Delta(0, f"{number} ", [100], finish_reason=finish)  # type: ignore[arg-type]


def main() -> None:
    """Serve until SIGTERM."""
    settings = Settings()
    configure_logging(settings.server_name)
    app = create_app(settings, opener(FakeEngine(counting), FakeMedia(), Tokenizer(BUNDLE)))
    listener = socket.create_server((settings.host, settings.port))
    config = server_config(app, settings)
    server = Server(config, app.state.service, f"http://{settings.host}:{settings.port}")
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    main()
