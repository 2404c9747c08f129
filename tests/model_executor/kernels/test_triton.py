"""The Triton body: its arithmetic through the interpreter, its compilation, and a real device where there is one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.model_executor.kernels.agreement import REAL_CASES, Case, assert_agrees

pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from model_executor.kernels.mrope import mrope_
from model_executor.kernels.triton_mrope import NUM_WARPS, VARYING, rotate_block


@pytest.mark.slow
def test_interpreted_kernel_equals_plain_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.model_executor.kernels.interpreted"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("compute_capability", [80, 90, 120])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_kernel_compiles_for_devices_without_one_and_fuses_nothing(compute_capability: int, dtype: str) -> None:
    constants = {"STARTS": (0, 16, 40), "HALF": 64, "PADDED_HALF": 64, "HEADS": 16}
    signature = dict.fromkeys(rotate_block.arg_names, "i32")
    signature |= dict.fromkeys(("q", "k", "new_q", "new_k"), f"*{dtype}") | {"positions": "*i64", "table": "*fp32"}
    signature |= dict.fromkeys(constants, "constexpr")
    counts = ("num_heads", "num_kv_heads")
    names = [name for name in rotate_block.arg_names if name not in (*constants, *VARYING, *counts)]
    aligned = {(rotate_block.arg_names.index(name),): [["tt.divisibility", 16]] for name in names}
    source = ASTSource(fn=rotate_block, signature=signature, constexprs=constants, attrs=aligned)
    options = {"enable_fp_fusion": False, "num_warps": NUM_WARPS}
    compiled = compile(source, target=GPUTarget("cuda", compute_capability, 32), options=options)
    assert compiled.asm["cubin"]
    ptx = compiled.asm["ptx"]
    assert "fma." not in ptx
    # Heads are read and written 16 bytes at a time.
    assert ptx.count("ld.global.v4.b32") >= 4 and ptx.count("st.global.v4.b32") >= 4
    assert not re.search(r"(ld|st)\.global\.b(16|8)\b", ptx)


@pytest.mark.gpu
@pytest.mark.parametrize("case", REAL_CASES, ids=str)
@pytest.mark.parametrize("layout", ["fused", "heads_first", "odd"])
def test_device_equals_plain_torch(case: Case, layout: str) -> None:
    shape = (case.num_tokens, case.num_heads, case.num_kv_heads, case.head_dim, case.section, case.dtype)
    for rows in ("separate", "cut", "expanded", "single"):
        assert_agrees(mrope_, Case(*shape, layout, rows), "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operator_passes_opcheck_on_the_device(dtype: torch.dtype) -> None:
    _, q, k, positions, _, section = Case(5, 4, 2, 16, (2, 3, 3), dtype).arguments()
    arguments = [tensor.cuda() for tensor in (q, k, positions % 9, torch.rand(9, 16))]
    torch.library.opcheck(torch.ops.tessera.mrope_.default, (*arguments, section))


@pytest.mark.gpu
def test_kernel_runs_in_a_cuda_graph() -> None:
    _, q, k, positions, _, section = Case(5, 4, 2, 16, (2, 3, 3), torch.float32).arguments()
    q, k, positions, table = (tensor.cuda() for tensor in (q, k, positions % 9, torch.rand(9, 16)))
    before = q.clone(), k.clone()
    mrope_(q, k, positions, table, section)  # compiles
    expected = q.clone(), k.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mrope_(q, k, positions, table, section)
    q.copy_(before[0])
    k.copy_(before[1])
    graph.replay()
    assert torch.equal(q, expected[0])
    assert torch.equal(k, expected[1])
