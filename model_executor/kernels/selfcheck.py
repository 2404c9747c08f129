"""What computes on this machine, reported as JSON: devices, and which bodies of the M-RoPE operator run and agree.

Run: `python -m model_executor.kernels.bodies`. A process of its own, since whoever asks may not load torch.
"""

import json
import logging
from typing import Any

import torch

from model_executor import cpu
from model_executor.kernels import mrope, native, reference

SECTION = (16, 24, 24)
"""Of the released models."""
TOLERANCE = {"cpu": 0.0, "cuda": 1e-5}
"""Largest difference from plain torch on values of about 1; the CPU's body is exact."""


def facts() -> dict[str, Any]:
    """Devices of this machine, and the bodies that run on them with their largest difference from plain torch."""
    compiled = native.load()
    bodies = [_tried("cpu", f"compiled C++, {native.instructions()}" if compiled else "plain torch, not compiled")]
    devices = []
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        bodies.append(_tried("cuda", "Triton"))
    return {
        "devices": devices,
        "num_cores": cpu.num_cores(),
        "native_bfloat16": cpu.has_native_bfloat16(),
        "bodies": bodies,
    }


def _tried(device: str, name: str) -> dict[str, Any]:
    """Run the operator on random values and compare with the reference."""
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(37, heads, 128, generator=generator) for heads in (4, 2))
    positions = torch.randint(0, 500, (3, 37), generator=generator)
    table = mrope.cos_sin_table(500, mrope.inverse_frequencies(128, 1e6))
    expected = q.clone(), k.clone()
    reference.rotate_(*expected, positions, table, SECTION)
    found = q.to(device), k.to(device)
    mrope.mrope_(*found, positions.to(device), table.to(device), SECTION)
    worst = max(float((x.cpu() - y).abs().max()) for x, y in zip(found, expected, strict=True))
    return {"device": device, "body": name, "max_difference": worst, "agrees": worst <= TOLERANCE[device]}


if __name__ == "__main__":
    logging.disable()  # what is missing is in the facts
    print(json.dumps(facts()))
