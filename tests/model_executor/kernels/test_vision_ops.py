"""The vision tower's operators, as this machine computes them, against exact arithmetic and by the same rules."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_executor.kernels.vision_ops import attend, attend_plainly, quick_gelu_, quick_gelu_plainly_

ERRORS = {torch.float32: 2e-6, torch.bfloat16: 6e-3}
"""Largest error of an operator, relative to the result's norm."""
DTYPES = list(ERRORS)


def fused(num_patches: int, num_heads: int, head_dim: int, dtype: torch.dtype, seed: int = 0) -> list[torch.Tensor]:
    """Queries, keys and values as the tower has them: views of one tensor."""
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(num_patches, 3, num_heads, head_dim, generator=generator)
    return list((2 * qkv).to(dtype).unbind(1))


def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Softmax of scores, slice by slice, in float64."""
    pieces = []
    for queries, keys, values in zip(*(torch.split(x.double(), sizes) for x in (q, k, v)), strict=True):
        scores = torch.einsum("qnd,knd->nqk", queries, keys) / q.shape[2] ** 0.5
        pieces.append(torch.einsum("nqk,knd->qnd", scores.softmax(-1), values))
    return torch.cat(pieces)


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [2, 20, 32, 64, 80, 128, 144])
@pytest.mark.parametrize("sizes", [[1], [4, 4, 300], [256], [257, 1025]], ids=str)
def test_attention_equals_exact_arithmetic(sizes: list[int], head_dim: int, dtype: torch.dtype) -> None:
    q, k, v = fused(sum(sizes), 2, head_dim, dtype)
    got = attend(q, k, v, sizes)
    assert got.is_contiguous() and got.dtype == dtype
    assert error(got, exact(q, k, v, sizes)) < ERRORS[dtype]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=6),
    num_heads=st.integers(1, 4),
    head_dim=st.integers(1, 50).map(lambda half: 2 * half),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_attention_is_exact_for_any_shape(
    sizes: list[int], num_heads: int, head_dim: int, dtype: torch.dtype, seed: int
) -> None:
    q, k, v = fused(sum(sizes), num_heads, head_dim, dtype, seed)
    assert error(attend(q, k, v, sizes), exact(q, k, v, sizes)) < ERRORS[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "bound"), [(1e-3, 2e-6), (30.0, 1e-5), (1e4, 1e-4)])
def test_attention_keeps_to_exact_arithmetic_however_far_scores_lie_apart(
    size: float, bound: float, dtype: torch.dtype
) -> None:
    q, k, v = fused(700, 1, 32, dtype)
    q = (q.float() * size).to(dtype)
    # The rounding of a score grows with the score, and with it the error of what is summed up.
    assert error(attend(q, k, v, [700]), exact(q, k, v, [700])) < max(ERRORS[dtype], bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads_do_not_change_the_result(num_threads: int, dtype: torch.dtype) -> None:
    q, k, v = fused(1500, 3, 80, dtype)
    before = torch.get_num_threads()
    whole = attend(q, k, v, [1100, 400])
    torch.set_num_threads(num_threads)
    try:
        assert torch.equal(attend(q, k, v, [1100, 400]), whole)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_stays_inside_a_slice_and_a_head(dtype: torch.dtype) -> None:
    q, k, v = fused(60, 2, 16, dtype)
    before = attend(q, k, v, [20, 40])
    v[:20, 0] += 1
    after = attend(q, k, v, [20, 40])
    assert torch.equal(before[20:], after[20:]) and torch.equal(before[:, 1], after[:, 1])
    assert not torch.equal(before[:20, 0], after[:20, 0])


def test_what_is_no_number_is_not_hidden() -> None:
    q, k, v = fused(100, 1, 16, torch.float32)
    k[70, 0, 3] = torch.nan
    assert attend(q, k, v, [100]).isnan().all()
    x = torch.tensor([torch.nan, torch.inf, -1e30, 0.0])
    assert quick_gelu_(x).isnan().tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    "sizes", [[], [4], [4, 7], [10, 0], [11, -1]], ids=["none", "too few", "too many", "an empty one", "a negative one"]
)
def test_slices_that_do_not_add_up_are_refused(sizes: list[int]) -> None:
    q, k, v = fused(10, 1, 16, torch.float32)
    with pytest.raises(ValueError, match="slice"):
        attend(q, k, v, sizes)


def test_shapes_and_types_that_do_not_fit_are_refused() -> None:
    q, k, v = fused(10, 2, 16, torch.float32)
    every_second = q[..., ::2]
    with pytest.raises(ValueError, match="fit"):
        attend(q, k[:, :1], v, [10])
    with pytest.raises(ValueError, match="fit"):
        attend(q, k, v.bfloat16(), [10])
    with pytest.raises(ValueError, match="fit"):
        attend(every_second, every_second, every_second, [10])
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        attend(q.double(), k.double(), v.double(), [10])
    with pytest.raises(ValueError, match="even"):
        attend(q[..., :15], k[..., :15], v[..., :15], [10])
    with pytest.raises(ValueError, match="contiguous"):
        quick_gelu_(q[:, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0, 1, 17, 70_001])
def test_quick_gelu_equals_exact_arithmetic_in_place(size: int, dtype: torch.dtype) -> None:
    x = torch.linspace(-60, 60, size).to(dtype)
    expected = x.double() * torch.sigmoid(1.702 * x.double())
    assert quick_gelu_(x) is x
    # The rounding of the exponent, up to a hundred, is the error of the result.
    assert torch.allclose(x.double(), expected, rtol=1e-5 if dtype == torch.float32 else 4e-3, atol=1e-30)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_plain_bodies_follow_the_same_rules(dtype: torch.dtype) -> None:
    q, k, v = fused(75, 3, 20, dtype)
    out = torch.empty(75, 3, 20, dtype=dtype)
    attend_plainly(out, q, k, v, [30, 30, 15])
    assert error(out, exact(q, k, v, [30, 30, 15])) < 2 * ERRORS[dtype]
    with pytest.raises(ValueError, match="slice"):
        attend_plainly(out, q, k, v, [30, 30])
    x = torch.linspace(-9, 9, 100).to(dtype)
    expected = x.double() * torch.sigmoid(1.702 * x.double())
    quick_gelu_plainly_(x)
    assert error(x, expected) < 2 * ERRORS[dtype]


def test_the_operators_declare_what_they_change() -> None:
    q, k, v = fused(12, 2, 16, torch.float32)
    out = torch.empty(12, 2, 16)
    torch.library.opcheck(torch.ops.tessera.attend.default, (out, q, k, v, [5, 7]))
    torch.library.opcheck(torch.ops.tessera.quick_gelu_.default, (torch.randn(9),))
