"""The one loop of all stages: draw, step, log, save; go on exactly where a run was cut off.

A batch depends on nothing but the recipe's seed, the stage and the step, so what is saved is the step, the weights and
the optimizer. Drawing is done by a worker process, ahead of the training process.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from model_executor.processor.tokenizer import Tokenizer
from training.auxiliary_losses import Boxing, Naming, Placing, point
from training.batch import Batch, collate, encode
from training.data import draw_sample
from training.model import Model
from training.optimizer import NATIVE_BFLOAT16, Optimizer
from training.recipe import Recipe, Stage
from training.vocabulary import save_tokenizer

LOG_EVERY_STEPS = 20
SAVE_EVERY_STEPS = 100


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step did, for whoever shows it."""

    stage: str
    step: int
    """Steps done, over all stages."""
    num_steps: int
    loss: float
    samples_per_s: float
    left_s: float


class Batches(Dataset[Batch]):
    """The batches of a run, by step."""

    def __init__(self, recipe: Recipe, folder: Path, first: int) -> None:
        """Args: recipe: whose batches. folder: of the tokenizer. first: the step that index 0 stands for."""
        self.recipe, self.folder, self.first = recipe, folder, first
        self._tokenizer: Tokenizer | None = None

    def __len__(self) -> int:
        """Batches from `first` to the end of the run."""
        return sum(stage.steps for stage in self.recipe.stages) - self.first

    def __getitem__(self, index: int) -> Batch:
        """The batch of step `first + index`."""
        self._tokenizer = self._tokenizer or Tokenizer(self.folder)
        step = self.first + index
        stage, _ = stage_at(self.recipe, step)
        seeds = [f"{self.recipe.seed} {step} {i}" for i in range(stage.batch_samples)]
        samples = [draw_sample(stage, seed) for seed in seeds]
        return collate([encode(sample, self._tokenizer, self.recipe.limits) for sample in samples])


def stage_at(recipe: Recipe, step: int) -> tuple[Stage, int]:
    """The stage of a step of the run, and the step within it."""
    for stage in recipe.stages:
        if step < stage.steps:
            return stage, step
        step -= stage.steps
    raise IndexError("the run is over")


def rate_at(recipe: Recipe, step: int) -> float:
    """The rate multiplier of a step: a warm-up at the start of the run, then the stage's line."""
    stage, within = stage_at(recipe, step)
    start, held, end = stage.lr
    share = max(0.0, within / stage.steps - held) / (1 - held) if held < 1 else 0.0
    return min(1.0, (step + 1) / recipe.optimizer.warmup_steps) * (start + (end - start) * share)


def exchange_weights(batch: Batch) -> Tensor:
    """[A]: an answer of n tokens weighs sqrt(n) in all, so that captions do not drown one-word answers."""
    lengths = np.bincount(batch.answer_exchange)[batch.answer_exchange]
    weights = torch.from_numpy(lengths).float().rsqrt()
    return weights / weights.sum()


class Run:
    """A training run in a folder: its model, its optimizer and how far it is."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        """Start, or go on from the folder's last save.

        Args:
            recipe: what to train.
            folder: gets the tokenizer, the log and the saves.
        """
        self.recipe, self.folder, self.step = recipe, folder, 0
        torch.manual_seed(recipe.seed)
        self.model = Model(recipe.shape)
        self.naming, self.placing, self.boxing = Naming(recipe.shape), Placing(recipe.shape), Boxing(recipe.shape)
        self.optimizer = Optimizer(self.model, self.naming, self.placing, self.boxing, rates=recipe.optimizer)
        self.seconds = 0.0
        if not (folder / "tokenizer.json").exists():
            save_tokenizer(recipe, folder)
        if self._save_path.exists():
            self._load()

    @property
    def num_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.recipe.stages)

    @property
    def _save_path(self) -> Path:
        return self.folder / "run.pt"

    def train(self, until: int | None = None) -> Iterator[Progress]:
        """Train on, to the end or to step `until`; yields once per step."""
        end = self.num_steps if until is None else until
        batches = Batches(self.recipe, self.folder, self.step)
        loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=16)
        started, window = time.monotonic(), _Window()
        for batch in loader:
            if self.step >= end:
                break
            begun = time.monotonic()
            loss = self.train_step(batch, window)
            self.seconds += time.monotonic() - begun
            rate = (time.monotonic() - started) / max(1, window.steps_ever)
            stage, _ = stage_at(self.recipe, self.step - 1)
            samples_per_s = stage.batch_samples / rate
            yield Progress(stage.name, self.step, end, loss, samples_per_s, rate * (end - self.step))
            if self.step % LOG_EVERY_STEPS == 0:
                self._log(window.close(), stage)
            if self.step % SAVE_EVERY_STEPS == 0:
                self.save()
        self.save()

    def train_step(self, batch: Batch, window: "_Window | None" = None) -> float:
        """One step; returns its loss in nats per (weighted) answer token."""
        stage, _ = stage_at(self.recipe, self.step)
        for name, weight in self.model.named_parameters():
            weight.requires_grad_(not name.startswith(stage.frozen) if stage.frozen else True)
        with torch.autocast("cpu", torch.bfloat16, enabled=NATIVE_BFLOAT16):
            loss, right, told = self._losses(batch, stage)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.max_gradient)
        self.optimizer.step(rate_at(self.recipe, self.step))
        self.step += 1
        if window is not None:
            window.add(loss.item(), told, batch, right)
        return loss.item()

    def _losses(self, batch: Batch, stage: Stage) -> tuple[Tensor, Tensor | None, dict[str, float]]:
        """The loss; which answer tokens are right, bool [A]; the shares told rightly."""
        seen = self.model.visual(batch) if len(batch.placeholders) else None
        loss, right, told = torch.zeros(()), None, {}
        if stage.answers:
            logits, made = self.model.answer(batch, seen)
            targets = torch.from_numpy(batch.answer_ids)
            losses = F.cross_entropy(logits, targets, reduction="none")
            loss, right = (losses * exchange_weights(batch)).sum(), logits.argmax(-1) == targets
            if seen is not None and stage.placing:
                placing, told["placed"] = self.placing(batch, made)
                loss = loss + stage.placing * placing
            if len(batch.pointing) and stage.pointing:
                pointing, told["pointed"] = point(self.model.model, batch, made)
                loss = loss + stage.pointing * pointing
            if len(batch.pointing) and stage.boxing:
                boxing, told["box error"] = self.boxing(batch, made)
                loss = loss + stage.boxing * boxing
        if seen is not None and stage.naming:
            naming, told["named"] = self.naming(batch, seen)
            loss = loss + stage.naming * naming
        return loss, right, told

    def save(self) -> None:
        """Write everything a resumed run needs; an interrupted save leaves the one before."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "naming": self.naming.state_dict(),
            "placing": self.placing.state_dict(),
            "boxing": self.boxing.state_dict(),
            "optimizer": self.optimizer.state(),
        }
        torch.save(state, self._save_path.with_suffix(".new"))
        self._save_path.with_suffix(".new").replace(self._save_path)

    def _load(self) -> None:
        state = torch.load(self._save_path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.naming.load_state_dict(state["naming"])
        self.placing.load_state_dict(state["placing"])
        self.boxing.load_state_dict(state["boxing"])
        self.optimizer.load(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        log = self.folder / "log.jsonl"
        if log.exists():  # what was logged after the save is done, and logged, again
            lines = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= self.step]
            log.write_text("".join(f"{line}\n" for line in lines))

    def _log(self, values: dict[str, Any], stage: Stage) -> None:
        entry = {"step": self.step, "stage": stage.name, "seconds": round(self.seconds, 1), **values}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(entry) + "\n")


class _Window:
    """Loss and exact match by task since the last line of the log; no sample repeats, so both are on unseen ones."""

    def __init__(self) -> None:
        self.steps_ever = 0
        self.losses: list[float] = []
        self.told: dict[str, list[float]] = {}
        self.right: dict[str, list[bool]] = {}

    def add(self, loss: float, told: dict[str, float], batch: Batch, right: Tensor | None) -> None:
        self.steps_ever += 1
        self.losses.append(loss)
        for what, share in told.items():
            self.told.setdefault(what, []).append(share)
        if right is None:
            return
        wrong = np.bincount(batch.answer_exchange, ~right.numpy(), minlength=len(batch.tasks))
        for task, number in zip(batch.tasks, wrong, strict=True):
            self.right.setdefault(task, []).append(number == 0)

    def close(self) -> dict[str, Any]:
        exact = {task: round(float(np.mean(values)), 4) for task, values in sorted(self.right.items())}
        told = {what: round(float(np.mean(shares)), 4) for what, shares in self.told.items()}
        values = {"loss": round(float(np.mean(self.losses)), 5), **told, "exact": exact}
        self.losses, self.told, self.right = [], {}, {}
        return values
