"""The loop: it learns, it resumes exactly, it freezes what a stage freezes."""

from dataclasses import replace
from pathlib import Path
from shutil import copy

import numpy as np
import pytest
import torch

from training.batch import Batch, layout, view
from training.feed import draw_batch, stage_at
from training.loop import Run, rate_at
from training.recipe import FULL, QUICK, Recipe, Stage, capacity

pytestmark = pytest.mark.slow

SHAPE = replace(
    FULL.shape, hidden_size=96, intermediate_size=128, mrope_section=(1, 2, 5), vision_size=32, vision_heads=2
)
TINY = Recipe(
    stages=tuple(replace(stage, steps=2, batch=capacity(bins=1, windows=4)) for stage in QUICK.stages),
    shape=SHAPE,
    optimizer=replace(QUICK.optimizer, warmup_steps=2),
)


@pytest.fixture
def folder(tmp_path: Path, tokenizer_folder: Path) -> Path:
    copy(tokenizer_folder / "tokenizer.json", tmp_path)
    return tmp_path


def _batch(run: Run, step: int) -> Batch:
    from model_executor.processor.tokenizer import Tokenizer

    size = stage_at(run.recipe, step)[0].batch
    block = np.zeros(layout(size)[1], np.uint8)
    draw_batch(run.recipe, step, Tokenizer(run.folder), block)
    return view(torch.from_numpy(block), size)


def test_steps_on_one_batch_lower_its_loss(folder: Path) -> None:
    for first in (0, 2):  # naming, and answering
        run = Run(TINY, folder, "cpu")
        batch = _batch(run, first)
        losses = []
        for _ in range(4):
            run.step = first
            losses.append(run.train_step(batch))
        assert losses[-1] < losses[0]


def test_a_resumed_run_equals_an_uninterrupted_one(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("resumed")
    copy(folder / "tokenizer.json", other)
    whole = list(Run(TINY, folder, "cpu").train(workers=2))
    list(Run(TINY, other, "cpu").train(until=5))
    resumed = Run(TINY, other, "cpu")
    assert resumed.step == 5
    rest = list(resumed.train())
    assert [progress.step for progress in rest] == [progress.step for progress in whole[5:]]
    for mine, theirs in zip(resumed.model.parameters(), Run(TINY, folder, "cpu").model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.slow
def test_the_last_stage_leaves_the_vision_tower_alone(folder: Path) -> None:
    run = Run(TINY, folder, "cpu")
    run.step = last = run.num_steps - 1
    before = {name: weight.detach().clone() for name, weight in run.model.named_parameters()}
    run.train_step(_batch(run, last))
    changed = {name for name, weight in run.model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed and not any(name.startswith("visual.") for name in changed)


def test_rates_warm_up_hold_and_fall() -> None:
    recipe = Recipe(stages=(replace(FULL.stages[0], steps=100, lr=(1.0, 0.5, 0.1)),))
    assert rate_at(recipe, 0) < 0.1
    assert rate_at(recipe, 49) == 1.0
    assert rate_at(recipe, 99) == pytest.approx(0.1, abs=0.02)


def test_every_step_belongs_to_a_stage() -> None:
    first: Stage = FULL.stages[0]
    assert stage_at(FULL, first.steps - 1) == (first, first.steps - 1)
    assert stage_at(FULL, first.steps) == (FULL.stages[1], 0)
    with pytest.raises(IndexError):
        stage_at(FULL, 10**9)
