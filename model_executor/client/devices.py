"""The GPUs of this machine, and which of them each engine of several gets."""

import os
from collections.abc import Sequence
from pathlib import Path

from model_executor.cpu import on_cpu
from model_executor.engine import EngineSettings

VARIABLE = "CUDA_VISIBLE_DEVICES"
_DEVICES = Path("/dev")


def engine_devices(settings: EngineSettings) -> list[str]:
    """For each engine, the value of CUDA_VISIBLE_DEVICES that it runs with; empty: the environment's."""
    size = settings.tensor_parallel_size * settings.pipeline_parallel_size
    return device_groups(settings.replicas, size, [] if on_cpu() else _visible_gpus())


def device_groups(num_groups: int, size: int, gpus: Sequence[str]) -> list[str]:
    """GPUs dealt out to engines in turn; where there are too few, engines share them.

    Args:
        num_groups: engines; 0: as many as there are whole groups of GPUs, at least one.
        size: GPUs of one engine.
        gpus: names of those there are, as CUDA_VISIBLE_DEVICES takes them; empty on a CPU.

    Returns:
        The names for each engine, separated by commas; an empty text where all there are may be used.
    """
    num_groups = num_groups or max(1, len(gpus) // size)
    if num_groups == 1 or size > len(gpus):
        return [""] * num_groups
    dealt = [[gpus[(group * size + place) % len(gpus)] for place in range(size)] for group in range(num_groups)]
    return [",".join(names) for names in dealt]


def _visible_gpus() -> list[str]:
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    return [str(number) for number, _ in enumerate(_DEVICES.glob("nvidia[0-9]*"))]
