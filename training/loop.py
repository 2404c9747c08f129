"""The one loop of all stages: step, log, save; go on exactly where a run was cut off.

A batch depends on nothing but the recipe's seed, the stage and the step, so what is saved is the step, the weights and
the optimizer. Drawing is done by other processes, ahead of this one (`training/feed.py`).
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_executor.cpu import has_native_bfloat16
from training.auxiliary_losses import BoxLoss, PositionLoss, SymbolLoss, pointing_loss
from training.batch import Batch, Block, view
from training.feed import feed, num_steps, stage_at
from training.model import Model
from training.optimizer import Optimizer
from training.pack import Notes
from training.recipe import Recipe, Stage
from training.recorded import Outcome, RecordedStep
from training.vocabulary import save_tokenizer

LOG_EVERY_STEPS = 20
SAVE_EVERY_S = 60.0
_AHEAD = 3
"""Steps that may wait for the device."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step did, for whoever shows it."""

    stage: str
    step: int
    """Steps done, over all stages."""
    num_steps: int
    logged: dict[str, Any] | None
    """What was just logged, every `LOG_EVERY_STEPS`."""
    left_s: float


def rate_at(recipe: Recipe, step: int) -> float:
    """The rate multiplier of a step: a warm-up at the start of the run, then the stage's line."""
    stage, within = stage_at(recipe, step)
    start, held, end = stage.lr
    share = max(0.0, within / stage.steps - held) / (1 - held) if held < 1 else 0.0
    return min(1.0, (step + 1) / recipe.optimizer.warmup_steps) * (start + (end - start) * share)


class Run:
    """A training run in a folder: its model, its optimizer and how far it is."""

    def __init__(self, recipe: Recipe, folder: Path, device: str | None = None) -> None:
        """Start, or go on from the folder's last save.

        Args:
            recipe: what to train.
            folder: gets the tokenizer, the log and the saves.
            device: `cuda` or `cpu`; a GPU if there is one.
        """
        self.recipe, self.folder, self.step, self.seconds = recipe, folder, 0, 0.0
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.low_precision = self.device.type == "cuda" or has_native_bfloat16()
        if self.device.type == "cuda":  # the ones that take a mask
            torch.backends.cuda.enable_flash_sdp(False)
            torch.backends.cuda.enable_cudnn_sdp(False)
        torch.manual_seed(recipe.seed)
        self.model = Model(recipe.shape)
        self.symbols, self.places, self.boxes = (kind(recipe.shape) for kind in (SymbolLoss, PositionLoss, BoxLoss))
        for part in self._parts.values():
            part.to(self.device)
        dtype = torch.bfloat16 if self.low_precision else torch.float32
        self.optimizer = Optimizer(*self._parts.values(), rates=recipe.optimizer, dtype=dtype)
        if not (folder / "tokenizer.json").exists():
            save_tokenizer(recipe, folder)
        if self._save_path.exists():
            self._load()

    @property
    def num_steps(self) -> int:
        """Steps of all stages."""
        return num_steps(self.recipe)

    @property
    def _parts(self) -> dict[str, nn.Module]:
        return {"model": self.model, "symbols": self.symbols, "places": self.places, "boxes": self.boxes}

    @property
    def _save_path(self) -> Path:
        return self.folder / "run.pt"

    def train(
        self, until: int | None = None, workers: int = 1, deadline: float = np.inf, *, record: bool = True
    ) -> Iterator[Progress]:
        """Train on, to the end or to step `until` or to a time; yields once per step.

        Args:
            until: step to stop before; None for the end.
            workers: processes that draw.
            deadline: `time.monotonic()` after which to save and stop.
            record: whether steps on a GPU are recorded and replayed (`training/recorded.py`).
        """
        end = self.num_steps if until is None else until
        if self.step >= end:
            return
        recorded = record and self.device.type == "cuda"
        with (
            feed(self.recipe, self.folder, self.step, workers) as source,
            self._recorded(source.block) if recorded else nullcontext(self._unrecorded) as step,
        ):
            window, started, first = _Window(), time.monotonic(), self.step
            last, saved = started, started
            for block, notes, slot in source.batches():
                stage = self._prepare()
                window.add(step(block, stage, slot), notes)
                self.step += 1
                now = time.monotonic()
                self.seconds, last = self.seconds + now - last, now
                over = self.step == end or now > deadline
                logged = self._log(window.close(), stage) if over or self.step % LOG_EVERY_STEPS == 0 else None
                if now - saved > SAVE_EVERY_S:
                    self.save()
                    saved = now
                yield Progress(
                    stage.name, self.step, end, logged, (now - started) / (self.step - first) * (end - self.step)
                )
                if over:
                    break
        self.save()

    def _unrecorded(self, block: Block, stage: Stage, slot: Semaphore) -> Outcome:
        outcome = self.compute(view(torch.from_numpy(block), stage.batch).to(self.device), stage)
        slot.release()
        return outcome

    @contextmanager
    def _recorded(self, memory: Block) -> Iterator[Callable[[Block, Stage, Semaphore], Outcome]]:
        recorded, waiting = RecordedStep(self.compute, memory, self.device), deque[tuple[torch.cuda.Event, Semaphore]]()

        def step(block: Block, stage: Stage, slot: Semaphore) -> Outcome:
            outcome, copied = recorded(block, stage)
            waiting.append((copied, slot))
            while len(waiting) > _AHEAD or (waiting and waiting[0][0].query()):  # type: ignore[no-untyped-call]
                event, used = waiting.popleft()
                event.synchronize()
                used.release()
            return outcome

        yield step
        recorded.close()

    def _prepare(self) -> Stage:
        """Set rate and frozen weights for the next step; returns its stage."""
        stage, _ = stage_at(self.recipe, self.step)
        self.optimizer.scale.fill_(rate_at(self.recipe, self.step))
        for name, weight in self.model.named_parameters():
            weight.requires_grad_(not name.startswith(stage.frozen) if stage.frozen else True)
        return stage

    def train_step(self, batch: Batch) -> float:
        """One step on `batch`; returns its loss in nats per (weighted) answer token."""
        outcome = self.compute(batch, self._prepare())
        self.step += 1
        return float(outcome.loss)

    def compute(self, batch: Batch, stage: Stage) -> Outcome:
        """Forward, backward and the optimizer's step, without waiting for the device."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low_precision):
            loss, right, told = self._losses(batch, stage)
        torch.autograd.backward(loss)
        trained = [weight for weight in self.model.parameters() if weight.grad is not None]
        nn.utils.clip_grad_norm_(trained, self.recipe.optimizer.max_gradient)
        self.optimizer.step()
        return Outcome(loss.detach(), right, {what: value.detach() for what, value in told.items()})

    def _losses(self, batch: Batch, stage: Stage) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """The loss; which answer tokens are right, bool [A]; the shares told rightly."""
        seen = self.model.visual(batch)
        loss, right, told = torch.zeros((), device=self.device), None, {}
        if stage.answers:
            logits, made = self.model.answer(batch, seen)
            losses = F.cross_entropy(logits.float(), batch.answer_ids, reduction="none")
            loss, right = (losses * batch.answer_weights).sum(), logits.argmax(-1) == batch.answer_ids
            if stage.placing:
                placing, told["placed"] = self.places(batch, made)
                loss = loss + stage.placing * placing
            if stage.pointing:
                pointing, told["pointed"] = pointing_loss(self.model.model, batch, made)
                loss = loss + stage.pointing * pointing
            if stage.boxing:
                boxing, told["box error"] = self.boxes(batch, made)
                loss = loss + stage.boxing * boxing
        if stage.naming:
            naming, told["named"] = self.symbols(batch, seen)
            loss = loss + stage.naming * naming
        return loss, right, told

    def save(self) -> None:
        """Write everything a resumed run needs; an interrupted save leaves the one before."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        state = {"step": self.step, "seconds": self.seconds, "optimizer": self.optimizer.state(), **parts}
        torch.save(state, self._save_path.with_suffix(".new"))
        self._save_path.with_suffix(".new").replace(self._save_path)

    def _load(self) -> None:
        state = torch.load(self._save_path, weights_only=True, map_location=self.device)
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self.optimizer.load(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        log = self.folder / "log.jsonl"
        if log.exists():  # what was logged after the save is done, and logged, again
            lines = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= self.step]
            log.write_text("".join(f"{line}\n" for line in lines))

    def _log(self, values: dict[str, Any], stage: Stage) -> dict[str, Any]:
        entry = {"step": self.step, "stage": stage.name, "seconds": round(self.seconds, 1), **values}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(entry) + "\n")
        return entry


class _Window:
    """Loss and exact match by task since the last line of the log; no sample repeats, so both are on unseen ones."""

    def __init__(self) -> None:
        self._steps: list[tuple[Outcome, Notes]] = []

    def add(self, outcome: Outcome, notes: Notes) -> None:
        self._steps.append((outcome, notes))

    def close(self) -> dict[str, Any]:
        """What to log of the steps since the last call."""
        right: dict[str, list[bool]] = {}
        for outcome, notes in self._steps:
            if outcome.right is None:
                continue
            exchanges = notes.exchanges
            missed = ~outcome.right[: len(exchanges)].cpu().numpy()
            wrong = np.bincount(exchanges, missed, minlength=len(notes.tasks))
            for task, number in zip(notes.tasks, wrong, strict=True):
                right.setdefault(task, []).append(number == 0)
        outcomes = [outcome for outcome, _ in self._steps]
        told: dict[str, list[Tensor]] = {}
        for outcome in outcomes:
            for what, value in outcome.told.items():
                told.setdefault(what, []).append(value)
        exact = {task: round(float(np.mean(values)), 4) for task, values in sorted(right.items())}
        samples = sum(notes.num_samples for _, notes in self._steps) / len(self._steps)
        shares = {what: _mean(values) for what, values in told.items()}
        self._steps = []
        return {"loss": _mean([o.loss for o in outcomes]), "samples": round(samples), **shares, "exact": exact}


def _mean(values: list[Tensor]) -> float:
    return round(float(torch.stack(values).mean()), 5)
