"""The machine's CPU: cores available to this process, native bfloat16, and whether torch is a CPU build.

Imports no torch: the engine process needs these facts before it does.
"""

import importlib.metadata
import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_CPU_INFO = Path("/proc/cpuinfo")
SMALL_MODEL_BYTES = 64 << 20
"""Weights below this size are computed by one thread."""
_NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""As x86 and ARM kernels name the instructions."""


def on_cpu() -> bool:
    """Whether the installed torch is a CPU build."""
    return importlib.metadata.version("torch").endswith("+cpu")


def num_cores() -> int:
    """Physical cores this process may use, at least 1; a container's CPU quota counts as cores, rounded up."""
    allowed = os.sched_getaffinity(0)
    cores = {_core(cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota(default=len(cores))))


def num_threads(weight_bytes: int, *, num_workers: int = 1) -> int:
    """Threads that compute a model soonest, at least 1.

    Threads wait for each other at every operator. With two of them this costs a step of the bundled model (16 MB) some
    2 ms, as much as one thread takes to read about 40 MB of weights, and many times that when other programs use the
    cores; so a small model is faster on one.

    Args:
        weight_bytes: of the model's weights on disk.
        num_workers: processes that share the cores.
    """
    return 1 if weight_bytes < SMALL_MODEL_BYTES else max(1, num_cores() // num_workers)


def has_native_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated, it is slower than float32."""
    return not _NATIVE_BFLOAT16.isdisjoint(_features())


def has_int8_tiles() -> bool:
    """Whether the processor multiplies tiles of 8-bit integers (AMX)."""
    return "amx_int8" in _features()


def _features() -> list[str]:
    for line in _CPU_INFO.read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return value.split()
    return []


def _core(cpu: int) -> tuple[str, str]:
    """Package and core of a logical CPU; where the kernel does not report them, each logical CPU is a core."""
    topology = _CPUS / f"cpu{cpu}" / "topology"
    try:
        return (topology / "physical_package_id").read_text(), (topology / "core_id").read_text()
    except OSError:
        return "", str(cpu)


def _quota(*, default: int) -> int:
    try:
        quota, period = _CPU_QUOTA.read_text().split()
    except OSError:
        return default
    return default if quota == "max" else -(-int(quota) // int(period))
