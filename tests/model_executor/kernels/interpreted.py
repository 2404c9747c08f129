"""The Triton bodies on the CPU, through Triton's interpreter, against the plain-torch one.

Run by `test_triton.py` in a process of its own with `TRITON_INTERPRET=1`, which Triton reads when a kernel is defined.
"""

import torch
from hypothesis import given, settings

from model_executor.kernels.triton_mrope import rotate_, rotated
from model_executor.kernels.triton_vision_ops import quick_gelu_
from tests.model_executor.kernels.agreement import (
    REAL_CASES,
    Case,
    assert_agrees,
    cases,
    with_height_and_width_swapped,
)


@settings(max_examples=40, deadline=None)
@given(cases())
def agrees_for_any_shape_layout_and_position(case: Case) -> None:
    assert_agrees(rotate_, case)


@settings(max_examples=20, deadline=None)
@given(cases())
def returns_what_the_one_in_place_would_leave(case: Case) -> None:
    memory, q, k, positions, table, section = case.arguments()
    before = memory.clone()
    new = rotated(q, k, positions, table, section)
    assert torch.equal(memory, before) and all(x.is_contiguous() for x in new)
    rotate_(q, k, positions, table, section)
    assert torch.equal(new[0], q) and torch.equal(new[1], k)


def makes_pairs_outside_the_table_nan() -> None:
    for position in (-1, 9, 2**40):
        q, k = torch.ones(2, 3, 16), torch.ones(2, 1, 16)
        positions = torch.zeros(3, 2, dtype=torch.int64)
        positions[1, 0] = position
        rotate_(q, k, positions, torch.ones(9, 16), [2, 3, 3])
        pairs = torch.zeros(2, 1, 16, dtype=torch.bool)
        pairs[0, :, [2, 3, 4, 10, 11, 12]] = True
        assert torch.equal(q.isnan(), pairs.expand_as(q))
        assert torch.equal(k.isnan(), pairs)


def quick_gelu_is_exact() -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 4e-3)):
        for size in (0, 1, 5000):
            x = torch.linspace(-60, 60, size).to(dtype)
            expected = x.double() * torch.sigmoid(1.702 * x.double())
            quick_gelu_(x)
            assert torch.allclose(x.double(), expected, rtol=tolerance, atol=1e-30), (dtype, size)


def main() -> None:
    """Raise `AssertionError` where the kernel is wrong."""
    for case in REAL_CASES:
        assert_agrees(rotate_, case)
        if case.num_tokens > 1:
            try:
                assert_agrees(with_height_and_width_swapped(rotate_), case)
            except AssertionError:
                continue
            raise AssertionError("swapped height and width passed for equal")
    agrees_for_any_shape_layout_and_position()
    returns_what_the_one_in_place_would_leave()
    makes_pairs_outside_the_table_nan()
    quick_gelu_is_exact()


if __name__ == "__main__":
    main()
