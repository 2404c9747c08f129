"""What all tests share: an environment that is nobody's, and a small checkpoint folder with the true tokenizer."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from model_executor.engine import EngineState
from model_executor.processor.tokenizer import Tokenizer
from server.app import create_app
from server.core.settings import Settings
from tests.support.fakes import MODEL, FakeEngine, FakeMedia, opener
from tests.support.world import OpenWorld, ServerFixture, serve_directly, serve_live

pytest_plugins = ["tests.support.scheduling"]

# What this project, its libraries and programs like to be told; what only tests read (`REQUIRE_*`, `SOAK_S`) stays.
_READ_BY_PROGRAMS = re.compile(
    r"(tessera|openai|hf|hugging_?face|transformers|vllm)_.*|.*_proxy|ssl_cert_(file|dir)"
    r"|columns|lines|no_color|force_color|pythonwarnings",
    re.IGNORECASE,
)


@pytest.fixture(scope="session", autouse=True)
def outer_environment() -> Iterator[dict[str, str]]:
    """Keeps from every test, and from what tests start, what the developer has exported; yields how it was."""
    outer = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        for name in filter(_READ_BY_PROGRAMS.fullmatch, outer):
            patch.delenv(name)
        yield outer


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a CUDA device where there is none; with `REQUIRE_GPU=1` it fails instead."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            if os.environ.get("REQUIRE_GPU") == "1":
                pytest.fail("REQUIRE_GPU=1, and there is no CUDA device")
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint folder, far too small to be worth running."""
    # torch takes seconds, and not every test needs it
    from training.random_checkpoint import CheckpointShape, write_random_checkpoint
    from training.random_weights import TextShape, VisionShape

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    text = TextShape(num_layers=1, hidden=32, intermediate=32, num_heads=1, num_kv_heads=1, mrope_section=(4, 6, 6))
    write_random_checkpoint(folder, CheckpointShape(text=text, vision=VisionShape(depth=1, width=16)))
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny_checkpoint: Path) -> Tokenizer:
    """The true Qwen tokenizer."""
    return Tokenizer(tiny_checkpoint)


@pytest.fixture
def open_world(tokenizer: Tokenizer, tmp_path: Path) -> OpenWorld:
    """Opens a world: settings by name, other fakes than the plain ones, names of adapters, `live` for real sockets."""
    data_dir = tmp_path / "data"

    @asynccontextmanager
    async def opened(
        *,
        engine: FakeEngine | None = None,
        media: FakeMedia | None = None,
        live: bool = False,
        adapters: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
        **settings: Any,
    ) -> AsyncIterator[ServerFixture]:
        engine, media = engine or FakeEngine(), media or FakeMedia()
        configured = Settings(**{"served_model_name": MODEL, "data_dir": data_dir, **settings})
        app = create_app(configured, opener(engine, media, tokenizer, adapters), clock=clock)
        running = serve_live(app, configured) if live else serve_directly(app)
        async with running as (client, stop), client:
            if engine.state is EngineState.READY:
                async with asyncio.timeout(60):
                    while app.state.service.state is not EngineState.READY:
                        await asyncio.sleep(0)
            yield ServerFixture(client, app, engine, media, stop)

    return opened


@pytest.fixture
async def world(open_world: OpenWorld) -> AsyncIterator[ServerFixture]:
    """A world with nothing special about it."""
    async with open_world() as opened:
        yield opened
