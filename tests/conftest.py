"""What many tests share: a small checkpoint folder with the true tokenizer."""

from pathlib import Path

import pytest

from training.random_checkpoint import CheckpointShape, TextShape, VisionShape, write_random_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint folder, far too small to be worth running."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    text = TextShape(num_layers=1, hidden=32, intermediate=32, num_heads=1, num_kv_heads=1, mrope_section=(4, 6, 6))
    write_random_checkpoint(folder, CheckpointShape(text=text, vision=VisionShape(depth=1, width=16)))
    return folder
