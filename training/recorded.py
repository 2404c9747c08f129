"""Training steps on a GPU: recorded once a stage, then replayed, so that the processor has next to nothing to do.

A small model's kernels are over sooner than Python can start the next one. A batch has a fixed shape, so a whole step
(forward, backward and the optimizer) can be recorded as one CUDA graph that reads its batch from one place.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.batch import Batch, Block, view
from training.recipe import Stage

_FIRST_STEPS = 3
"""Steps of a stage before one is recorded: they choose algorithms and make the optimizer's state."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step gave, on its device."""

    loss: Tensor
    right: Tensor | None
    """bool [A]: which answer tokens are the likeliest; None where no answers are learned."""
    told: dict[str, Tensor]
    """Shares told rightly, or errors, of the losses beside the answers."""

    def copy(self) -> "Outcome":
        """The same in memory of its own."""
        told = {what: value.clone() for what, value in self.told.items()}
        return Outcome(self.loss.clone(), None if self.right is None else self.right.clone(), told)


class RecordedStep:
    """Takes steps on the GPU."""

    def __init__(self, compute: Callable[[Batch, Stage], Outcome], memory: Block, device: torch.device) -> None:
        """Lock the memory that batches are drawn into, so that it is copied without waiting.

        Args:
            compute: one step; its weights are on the GPU.
            memory: all blocks lie in it.
            device: the GPU.
        """
        self._compute, self._device, self._memory = compute, device, memory
        self._runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        error = self._runtime.cudaHostRegister(memory.ctypes.data, memory.nbytes, 0)
        if int(error):
            _log.warning("batches are copied from memory that is not locked: CUDA error %s", error)
        self._stage: Stage | None = None
        self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outcome: Outcome | None = None

    def __call__(self, block: Block, stage: Stage) -> tuple[Outcome, torch.cuda.Event]:
        """One step; returns what it gives, and the event after which `block` is not read any more."""
        if stage is not self._stage:
            self._graph = self._outcome = None
            self._stage, self._steps = stage, 0
            self._block = torch.empty(len(block), dtype=torch.uint8, device=self._device)
            self._batch = view(self._block, stage.batch)
        self._block.copy_(torch.from_numpy(block), non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        self._steps += 1
        if self._steps <= _FIRST_STEPS:
            return self._unrecorded(stage), copied
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._outcome = self._compute(self._batch, stage)
        self._graph.replay()
        assert self._outcome is not None
        return self._outcome.copy(), copied

    def close(self) -> None:
        """Let the memory go, after the last step."""
        torch.cuda.synchronize()
        self._graph = self._outcome = None
        self._runtime.cudaHostUnregister(self._memory.ctypes.data)

    def _unrecorded(self, stage: Stage) -> Outcome:
        """A step on a stream of its own, as what is recorded later must find it."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outcome = self._compute(self._batch, stage)
        torch.cuda.current_stream().wait_stream(stream)
        return outcome
