"""The quick recipe, from nothing to a checkpoint that loads."""

import json
from pathlib import Path

import pytest

from model_executor.checkpoint.config import read_checkpoint
from training.export import HASHES, export
from training.loop import Run
from training.recipe import QUICK


@pytest.mark.slow
def test_the_quick_recipe_learns_and_exports(tmp_path: Path) -> None:
    run = Run(QUICK, tmp_path)
    list(run.train())
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    naming = [entry["loss"] for entry in log if entry["stage"] == QUICK.stages[0].name]
    seeing = [entry["loss"] for entry in log if entry["stage"] == QUICK.stages[1].name]
    assert naming[-1] < naming[0]
    assert seeing[-1] < 0.7 * seeing[0]
    export(run, tmp_path / "bundle")
    assert (tmp_path / "bundle" / HASHES).is_file()
    assert read_checkpoint(tmp_path / "bundle").max_model_len >= 20_480
