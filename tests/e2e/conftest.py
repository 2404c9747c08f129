"""One server for the tests that leave it as they found it."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support.serving import RunningServer
from training.random_checkpoint import write_random_checkpoint


@pytest.fixture(scope="package")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small random model that `make serve` falls back to."""
    folder = tmp_path_factory.mktemp("models") / "random"
    write_random_checkpoint(folder)
    return folder


@pytest.fixture(scope="package")
def server(checkpoint: Path) -> Iterator[RunningServer]:
    """A ready server, computing in float32."""
    with RunningServer(checkpoint, {"TESSERA_ENGINE__DTYPE": "float32"}) as running:
        yield running


@pytest.fixture(scope="package")
def bundled_server() -> Iterator[RunningServer]:
    """A ready server that nobody told which model to serve."""
    with RunningServer(None) as running:
        yield running


@pytest.fixture(scope="package")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    """The official client, without its retries: what fails should be seen."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=120) as made:
        yield made
