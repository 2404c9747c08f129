"""The loop: it learns, it resumes exactly, it freezes what a stage freezes."""

from dataclasses import replace
from pathlib import Path
from shutil import copy

import pytest
import torch

from training.loop import Batches, Run, rate_at, stage_at
from training.recipe import FULL, QUICK, Recipe, Stage

TINY = Recipe(
    stages=tuple(replace(stage, steps=2, batch_samples=4) for stage in QUICK.stages),
    optimizer=replace(QUICK.optimizer, warmup_steps=2),
)


@pytest.fixture
def folder(tmp_path: Path, tokenizer_folder: Path) -> Path:
    copy(tokenizer_folder / "tokenizer.json", tmp_path)
    return tmp_path


@pytest.mark.slow
def test_steps_on_one_batch_lower_its_loss(folder: Path) -> None:
    for first in (0, 2):  # naming, and answering
        run = Run(TINY, folder)
        run.step = first
        batch = Batches(TINY, folder, first)[0]
        losses = []
        for _ in range(3):
            run.step = first
            losses.append(run.train_step(batch))
        assert losses[-1] < losses[0]


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("resumed")
    copy(folder / "tokenizer.json", other)
    whole = list(Run(TINY, folder).train())
    list(Run(TINY, other).train(until=4))
    resumed = Run(TINY, other)
    assert resumed.step == 4
    rest = list(resumed.train())
    assert [p.loss for p in rest] == pytest.approx([p.loss for p in whole[4:]], abs=1e-5)
    for mine, theirs in zip(resumed.model.parameters(), Run(TINY, folder).model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.slow
def test_the_last_stage_leaves_the_vision_tower_alone(folder: Path) -> None:
    run = Run(TINY, folder)
    run.step = last = run.num_steps - 1
    before = {name: weight.detach().clone() for name, weight in run.model.named_parameters()}
    run.train_step(Batches(TINY, folder, last)[0])
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
