"""What all tests share: an environment that is nobody's, and a small checkpoint folder with the true tokenizer."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.random_checkpoint import CheckpointShape, TextShape, VisionShape, write_random_checkpoint

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


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint folder, far too small to be worth running."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    text = TextShape(num_layers=1, hidden=32, intermediate=32, num_heads=1, num_kv_heads=1, mrope_section=(4, 6, 6))
    write_random_checkpoint(folder, CheckpointShape(text=text, vision=VisionShape(depth=1, width=16)))
    return folder
