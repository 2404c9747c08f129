"""Batches drawn ahead of training, by processes of their own, into memory that all of them share.

A batch depends on nothing but the recipe's seed, the stage and the step, whoever draws it. Each process draws every
n-th batch into slots of its own; a slot is drawn into again when what it holds has been used.
"""

import mmap
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from pathlib import Path

import numpy as np

from model_executor.processor.tokenizer import Tokenizer
from training.backgrounds import photographs
from training.batch import Block, layout
from training.data import draw_sample
from training.encode import EncodedSample, encode
from training.pack import Notes, Packer
from training.recipe import Recipe, Stage

_SLOTS = 3
"""Batches that each process may be ahead."""
_MISSES = 4
"""Samples that may find no room before a batch counts as full; samples differ in length."""
_PATIENCE_S = 120
_NICENESS = 5
"""So that the process that trains is never kept waiting by those that draw."""


class Feed:
    """The batches of a run from some step on, drawn by `workers` processes."""

    def __init__(self, recipe: Recipe, folder: Path, first: int, workers: int) -> None:
        """Start drawing.

        Args:
            recipe: whose batches.
            folder: of the tokenizer.
            first: the step of the first batch.
            workers: processes, at least 1.
        """
        self._recipe, self._first, self._workers = recipe, first, workers
        tokenizer = Tokenizer(folder)
        photographs("training")  # read once, before the processes part
        self._num_bytes = max(layout(stage.batch)[1] for stage in recipe.stages)
        self._memory = mmap.mmap(-1, self._num_bytes * workers * _SLOTS)
        self.block = np.frombuffer(self._memory, np.uint8)
        """All slots, one after another."""
        context = multiprocessing.get_context("fork")
        self._free = [context.Semaphore(_SLOTS) for _ in range(workers)]
        pipes = [context.Pipe(duplex=False) for _ in range(workers)]
        self._ends = [receiving for receiving, _ in pipes]
        self._processes = [
            context.Process(target=self._draw, args=(tokenizer, worker, pipes[worker][1]), daemon=True)
            for worker in range(workers)
        ]
        for process in self._processes:
            process.start()

    def batches(self) -> Iterator[tuple[Block, Notes, Semaphore]]:
        """Blocks in the order of steps, their notes, and what to release when a block has been used."""
        for step in range(self._first, num_steps(self._recipe)):
            worker = (step - self._first) % self._workers
            waited = 0
            while not self._ends[worker].poll(1):
                waited += 1
                if waited > _PATIENCE_S or not self._processes[worker].is_alive():
                    raise RuntimeError("a process that draws batches has died, or draws nothing")
            notes = self._ends[worker].recv()
            if isinstance(notes, str):
                raise RuntimeError(f"a batch cannot be drawn: {notes}")
            yield self._slot(step, stage_at(self._recipe, step)[0]), notes, self._free[worker]

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()

    def _slot(self, step: int, stage: Stage) -> Block:
        worker, turn = (step - self._first) % self._workers, (step - self._first) // self._workers
        start = (worker * _SLOTS + turn % _SLOTS) * self._num_bytes
        return self.block[start : start + layout(stage.batch)[1]]

    def _draw(self, tokenizer: Tokenizer, worker: int, end: Connection) -> None:
        os.nice(_NICENESS)
        try:
            for step in range(self._first + worker, num_steps(self._recipe), self._workers):
                self._free[worker].acquire()
                end.send(draw_batch(self._recipe, step, tokenizer, self._slot(step, stage_at(self._recipe, step)[0])))
        except Exception as error:  # whatever it is, the run must know
            end.send(f"{type(error).__name__}: {error}")


@contextmanager
def feed(recipe: Recipe, folder: Path, first: int, workers: int) -> Iterator[Feed]:
    """A `Feed` that ends with the block."""
    opened = Feed(recipe, folder, first, workers)
    try:
        yield opened
    finally:
        opened.close()


def draw_batch(recipe: Recipe, step: int, tokenizer: Tokenizer, block: Block) -> Notes:
    """Draw the batch of a step into `block`: samples one after another, until there is no room."""
    stage, _ = stage_at(recipe, step)
    packer, missed = Packer(block, stage.batch), 0
    for number in count():
        sample = draw_fitting(recipe, stage, f"{recipe.seed} {step} {number}", tokenizer)
        missed += sample is not None and not packer.add(sample)
        if missed == _MISSES:
            return packer.finish()
    raise AssertionError


def draw_fitting(recipe: Recipe, stage: Stage, seed: str, tokenizer: Tokenizer) -> EncodedSample | None:
    """The sample of a seed, with so many of its exchanges that it fits into a bin; None if not even one does."""
    sample = draw_sample(stage, seed)
    while True:
        encoded = encode(sample, tokenizer, recipe.limits)
        if len(encoded.token_ids) <= stage.batch.bin_tokens:
            return encoded
        if len(sample.exchanges) == 1:
            return None
        sample = replace(sample, exchanges=sample.exchanges[: len(sample.exchanges) * 2 // 3])


def num_steps(recipe: Recipe) -> int:
    """Steps of all stages."""
    return sum(stage.steps for stage in recipe.stages)


def stage_at(recipe: Recipe, step: int) -> tuple[Stage, int]:
    """The stage of a step of the run, and the step within it."""
    for stage in recipe.stages:
        if step < stage.steps:
            return stage, step
        step -= stage.steps
    raise IndexError("the run is over")
