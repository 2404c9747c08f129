"""Facts about the machine, from files laid out as the kernel does."""

import os
from pathlib import Path

import pytest

from model_executor import cpu


@pytest.fixture
def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight logical CPUs, two per core, all allowed, no quota."""
    for number in range(8):
        topology = tmp_path / f"cpu{number}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text("0\n")
        (topology / "core_id").write_text(f"{number // 2}\n")
    monkeypatch.setattr(cpu, "_CPUS", tmp_path)
    monkeypatch.setattr(cpu, "_CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(cpu, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return tmp_path


def test_counts_physical_cores(computer: Path) -> None:
    assert cpu.num_cores() == 4


def test_counts_only_allowed_cores(computer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4})
    assert cpu.num_cores() == 2


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 4), ("150000 100000", 2), ("10000 100000", 1)])
def test_container_quota_limits_cores(computer: Path, quota: str, cores: int) -> None:
    (computer / "cpu.max").write_text(quota)
    assert cpu.num_cores() == cores


def test_unknown_topology_counts_each_logical_cpu(computer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_CPUS", computer / "nowhere")
    assert cpu.num_cores() == 8


@pytest.mark.parametrize(
    ("weight_bytes", "num_workers", "threads"), [(16e6, 1, 1), (1e8, 1, 4), (4e9, 3, 1), (4e9, 9, 1)]
)
def test_small_models_are_computed_by_one_thread_and_large_ones_by_all(
    computer: Path, weight_bytes: float, num_workers: int, threads: int
) -> None:
    assert cpu.num_threads(int(weight_bytes), num_workers=num_workers) == threads


@pytest.mark.parametrize(
    ("line", "native"),
    [("flags\t\t: fpu avx512f avx512_bf16", True), ("Features\t: fp asimd bf16", True), ("flags\t\t: avx512f", False)],
)
def test_native_bfloat16_is_read_from_the_flags(computer: Path, line: str, native: bool) -> None:
    (computer / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    assert cpu.has_native_bfloat16() is native
