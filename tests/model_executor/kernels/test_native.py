"""The compiled CPU body against the plain-torch one, with every instruction set this machine has."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings

from model_executor.kernels import native, reference
from model_executor.kernels.mrope import cos_sin_table, inverse_frequencies, mrope_
from tests.model_executor.kernels.agreement import (
    REAL_CASES,
    Body,
    Case,
    assert_agrees,
    cases,
    results,
    with_height_and_width_swapped,
)

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.fixture(params=native.INSTRUCTION_SETS, scope="module")
def instructions(request: pytest.FixtureRequest, compiled: None) -> Iterator[str]:
    """Each instruction set in turn."""
    before = native.instructions()
    if not native.use_instructions(request.param):
        pytest.skip(f"this machine has no {request.param}")
    yield native.instructions()
    native.use_instructions(before)


@pytest.mark.parametrize("case", REAL_CASES, ids=str)
def test_equals_plain_torch_to_the_last_bit(case: Case, instructions: str) -> None:
    ours, expected = results(mrope_, case)
    assert torch.equal(ours, expected)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(cases())
def test_equals_plain_torch_for_any_shape_layout_and_position(instructions: str, case: Case) -> None:
    ours, expected = results(mrope_, case)
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("case", [case for case in REAL_CASES if case.num_tokens > 1], ids=str)
def test_swapped_height_and_width_are_found_out(case: Case) -> None:
    with pytest.raises(AssertionError):
        assert_agrees(with_height_and_width_swapped(mrope_), case)


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_threads_do_not_change_the_result(num_threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        for dtype in (torch.float32, torch.bfloat16):
            ours, expected = results(mrope_, Case(1021, 12, 2, 128, (16, 24, 24), dtype))
            assert torch.equal(ours, expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("num_pairs", [1, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_infinities_and_tiny_and_missing_numbers_stay_what_they_are(
    instructions: str, dtype: torch.dtype, num_pairs: int
) -> None:
    odd = torch.tensor([float("nan"), float("-nan"), float("inf"), -float("inf"), 3.3e38, 1e-39, -0.0, 1.0])
    bits = torch.tensor([0x7FFF, -1, 0x7F81, 0x7F7F], dtype=torch.int16).view(torch.bfloat16).to(dtype)
    numbers = torch.cat([odd.to(dtype), bits])
    q = torch.cartesian_prod(numbers, numbers).repeat_interleave(num_pairs, 1)[:, None].contiguous()
    k, table = q.clone(), torch.tensor([[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]]).repeat_interleave(num_pairs, 1)
    for position in range(3):
        ours, expected = (q.clone(), k.clone()), (q.clone(), k.clone())
        positions = torch.full((len(q),), position)
        mrope_(*ours, positions, table, [num_pairs])
        reference.rotate_(*expected, positions, table, [num_pairs])
        for one, other in zip(ours, expected, strict=True):
            assert torch.equal(one.isnan(), other.isnan())
            assert torch.equal(one.nan_to_num(), other.nan_to_num())


@pytest.mark.parametrize("body", [mrope_, reference.rotate_], ids=["compiled", "plain torch"])
@pytest.mark.parametrize("position", [-1, 9, -(2**62), 2**62])
@pytest.mark.parametrize("axis", [0, 2])
def test_refuses_a_position_outside_the_table_and_leaves_q_and_k_alone(body: Body, position: int, axis: int) -> None:
    q, k = torch.randn(5, 4, 16), torch.randn(5, 2, 16)
    q_before, k_before = q.clone(), k.clone()
    positions = torch.zeros(3, 5, dtype=torch.int64)
    positions[axis, 3] = position
    with pytest.raises(IndexError):
        body(q, k, positions, torch.rand(9, 16), [2, 3, 3])
    assert torch.equal(q, q_before)
    assert torch.equal(k, k_before)


Q, K = torch.zeros(5, 4, 16), torch.zeros(5, 2, 16)
POSITIONS, TABLE, SECTION = torch.zeros(3, 5, dtype=torch.int64), torch.zeros(9, 16), [2, 3, 3]
UNFIT = {
    "q of two axes": (Q[0], K, POSITIONS, TABLE, SECTION),
    "k of other length": (Q, K[:4], POSITIONS, TABLE, SECTION),
    "k of other head size": (Q, K[..., :14], POSITIONS, TABLE, SECTION),
    "k of other type": (Q, K.bfloat16(), POSITIONS, TABLE, SECTION),
    "float64": (Q.double(), K.double(), POSITIONS, TABLE, SECTION),
    "float16": (Q.half(), K.half(), POSITIONS, TABLE, SECTION),
    "q with gaps": (torch.zeros(5, 4, 32)[..., ::2], K, POSITIONS, TABLE, SECTION),
    "table of one axis": (Q, K, POSITIONS, TABLE[0], SECTION),
    "table of odd width": (Q, K, POSITIONS, TABLE[:, :15], SECTION),
    "table wider than heads": (Q[..., :8], K[..., :8], POSITIONS, TABLE, SECTION),
    "table in bfloat16": (Q, K, POSITIONS, TABLE.bfloat16(), SECTION),
    "table with gaps": (Q, K, POSITIONS, torch.zeros(9, 32)[:, ::2], SECTION),
    "sections too long": (Q, K, POSITIONS, TABLE, [2, 3, 4]),
    "section below zero": (Q, K, POSITIONS, TABLE, [-2, 7, 3]),
    "no section": (Q, K, POSITIONS[0], TABLE[:, :0], []),
    "positions of other axes": (Q, K, POSITIONS[:2], TABLE, SECTION),
    "positions of other length": (Q, K, POSITIONS[:, :4], TABLE, SECTION),
    "positions of three axes": (Q, K, POSITIONS[None], TABLE, SECTION),
    "positions in int32": (Q, K, POSITIONS.int(), TABLE, SECTION),
}


@pytest.mark.parametrize("body", [mrope_, reference.rotate_], ids=["compiled", "plain torch"])
@pytest.mark.parametrize("name", UNFIT)
def test_refuses_arguments_that_do_not_fit(body: Body, name: str) -> None:
    with pytest.raises(ValueError, match=r"fit|must be|add up"):
        body(*UNFIT[name])


@pytest.mark.parametrize("case", [case for case in REAL_CASES if case.num_tokens], ids=str)
def test_operator_passes_opcheck(case: Case) -> None:
    # With a plain table: opcheck copies its arguments, and rows that overlap in memory do not survive that.
    _, q, k, positions, _, section = case.arguments()
    table = cos_sin_table(9, inverse_frequencies(2 * sum(section), 1e4))
    torch.library.opcheck(torch.ops.tessera.mrope_.default, (q, k, positions % 9, table, section))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_runs_in_a_traced_model_and_in_inference_mode(dtype: torch.dtype) -> None:
    def rotated(qkv: torch.Tensor, positions: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        qkv = qkv * 2
        mrope_(qkv[:, :4], qkv[:, 4:6], positions, table, [2, 3, 3])
        return qkv + 1

    arguments = torch.randn(5, 8, 16).to(dtype), torch.randint(0, 9, (3, 5)), torch.rand(9, 16)
    with torch.inference_mode():
        expected = rotated(*arguments)
        traced = torch.compile(rotated, backend="aot_eager", fullgraph=True)(*arguments)
    assert torch.equal(traced, expected)
    assert torch.equal(rotated(*arguments), expected)
