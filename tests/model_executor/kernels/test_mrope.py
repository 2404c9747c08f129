"""The M-RoPE operator against transformers, and against properties any rotation has."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VLRotaryEmbedding,
    apply_rotary_pos_emb,
    apply_rotary_pos_emb_vision,
)

from model_executor.kernels.mrope import cos_sin_table, inverse_frequencies, mrope_

THETA = 1_000_000.0
SHAPES = [(16, 24, 24, 28, 4), (16, 24, 24, 12, 2), (8, 12, 12, 4, 2), (2, 3, 3, 3, 3)]
"""Section, query heads, key heads: 7B, 2B, the random checkpoint, and heads without sharing."""


def fused_views(
    num_tokens: int, num_heads: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A fused qkv [T, (Nq + 2 Nk) D] and its q and k views, as a model hands them over."""
    qkv = torch.randn(num_tokens, (num_heads + 2 * num_kv_heads) * head_dim).to(dtype)
    q = qkv[:, : num_heads * head_dim].view(num_tokens, num_heads, head_dim)
    k = qkv[:, num_heads * head_dim : (num_heads + num_kv_heads) * head_dim].view(num_tokens, num_kv_heads, head_dim)
    return qkv, q, k


def text_table(head_dim: int, max_pos: int) -> torch.Tensor:
    return cos_sin_table(max_pos, inverse_frequencies(head_dim, THETA))


def by_transformers(
    q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, section: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    head_dim, num_heads = q.shape[2], q.shape[1]
    config = Qwen2VLTextConfig(
        hidden_size=head_dim * num_heads,
        num_attention_heads=num_heads,
        num_hidden_layers=1,
        rope_parameters={"rope_type": "default", "rope_theta": THETA, "mrope_section": list(section)},
    )
    cos, sin = Qwen2VLRotaryEmbedding(config)(  # type: ignore[arg-type]
        q.float(), positions.view(-1, 1, q.shape[0])
    )
    rotated = apply_rotary_pos_emb(q.transpose(0, 1)[None], k.transpose(0, 1)[None], cos, sin)
    return rotated[0][0].transpose(0, 1), rotated[1][0].transpose(0, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_transformers_in_float32(shape: tuple[int, int, int, int, int]) -> None:
    torch.manual_seed(0)
    *section, num_heads, num_kv_heads = shape
    head_dim = 2 * sum(section)
    _, q, k = fused_views(33, num_heads, num_kv_heads, head_dim)
    positions = torch.randint(0, 30_000, (3, 33))
    expected = by_transformers(q.clone(), k.clone(), positions, section)
    mrope_(q, k, positions, text_table(head_dim, 30_000), section)
    assert torch.allclose(q, expected[0], rtol=0, atol=1e-6)
    assert torch.allclose(k, expected[1], rtol=0, atol=1e-6)


def test_two_sections_with_repeated_frequencies_equal_the_vision_rotation_of_transformers() -> None:
    torch.manual_seed(1)
    frequencies = inverse_frequencies(40, 10_000.0)
    _, q, k = fused_views(21, 2, 2, 80)
    positions = torch.randint(0, 200, (2, 21))
    angles = torch.cat([positions[0][:, None] * frequencies, positions[1][:, None] * frequencies], dim=-1)
    angles = torch.cat([angles, angles], dim=-1)
    expected = apply_rotary_pos_emb_vision(q.clone(), k.clone(), angles.cos(), angles.sin())
    mrope_(q, k, positions, cos_sin_table(200, torch.cat([frequencies, frequencies])), [20, 20])
    assert torch.allclose(q, expected[0], rtol=0, atol=1e-6)
    assert torch.allclose(k, expected[1], rtol=0, atol=1e-6)


def test_swapped_height_and_width_do_not_pass_for_equal() -> None:
    torch.manual_seed(2)
    _, q, k = fused_views(9, 4, 2, 64)
    positions = torch.randint(0, 1000, (3, 9))
    expected = by_transformers(q.clone(), k.clone(), positions[[0, 2, 1]], (8, 12, 12))
    mrope_(q, k, positions, text_table(64, 1000), (8, 12, 12))
    assert not torch.allclose(q, expected[0], atol=1e-2)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], int, int, int, int]:
    """Section, extra dimensions that are not rotated, query heads, key heads, tokens."""
    section = draw(st.lists(st.integers(1, 24), min_size=3, max_size=3))
    groups = draw(st.integers(1, 4))
    num_kv_heads = draw(st.integers(1, 4))
    return section, 2 * draw(st.integers(0, 8)), groups * num_kv_heads, num_kv_heads, draw(st.integers(0, 9))


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 2**31), st.integers(0, 999_990))
def test_rotation_keeps_lengths_neighbours_and_relative_scores(
    case: tuple[list[int], int, int, int, int], seed: int, shift: int
) -> None:
    section, extra, num_heads, num_kv_heads, num_tokens = case
    torch.manual_seed(seed)
    rotary = 2 * sum(section)
    qkv, q, k = fused_views(num_tokens, num_heads, num_kv_heads, rotary + extra)
    before, q_before = qkv.clone(), q.clone()
    positions = torch.randint(0, 10, (3, num_tokens + 2))[:, :num_tokens]
    # Float64 angles cannot be had from the float32 table, so the table holds the ten rows from `shift` on.
    rows = torch.arange(shift, shift + 10, dtype=torch.float64)[:, None] * inverse_frequencies(rotary, 1e4).double()
    table = torch.cat([rows.cos(), rows.sin()], dim=-1).float()
    mrope_(q, k, positions, table, section)
    assert torch.allclose(q.norm(dim=-1), q_before.norm(dim=-1), atol=1e-4)
    assert torch.equal(q[..., rotary:], q_before[..., rotary:])
    values = (num_heads + num_kv_heads) * (rotary + extra)
    assert torch.equal(qkv[:, values:], before[:, values:]), "the values in the fused tensor were touched"
    origin = before.clone()
    q_origin = origin[:, : num_heads * q.shape[2]].view(q.shape)
    k_origin = origin[:, num_heads * q.shape[2] : values].view(k.shape)
    mrope_(q_origin, k_origin, positions, cos_sin_table(10, inverse_frequencies(rotary, 1e4)), section)
    scores = torch.einsum("thd,shd->hts", q[:, :num_kv_heads], k)
    scores_origin = torch.einsum("thd,shd->hts", q_origin[:, :num_kv_heads], k_origin)
    assert torch.allclose(scores, scores_origin, atol=2e-3), "scores must depend on relative positions only"


def test_one_row_of_positions_equals_three_equal_rows() -> None:
    torch.manual_seed(3)
    _, q, k = fused_views(6, 4, 2, 64)
    q_three, k_three = q.clone(), k.clone()
    positions = torch.arange(6)
    mrope_(q, k, positions, text_table(64, 6), (8, 12, 12))
    mrope_(q_three, k_three, positions.expand(3, -1), text_table(64, 6), (8, 12, 12))
    assert torch.equal(q, q_three)
    assert torch.equal(k, k_three)


def test_bfloat16_is_rotated_in_float32() -> None:
    torch.manual_seed(4)
    _, q, k = fused_views(17, 4, 2, 128, torch.bfloat16)
    exact_q, exact_k = q.float(), k.float()
    positions = torch.randint(0, 5000, (3, 17))
    mrope_(q, k, positions, text_table(128, 5000), (16, 24, 24))
    mrope_(exact_q, exact_k, positions, text_table(128, 5000), (16, 24, 24))
    assert torch.equal(q, exact_q.bfloat16())
    assert torch.equal(k, exact_k.bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_axes", [1, 3])
def test_operator_passes_opcheck(dtype: torch.dtype, num_axes: int) -> None:
    _, q, k = fused_views(5, 4, 2, 16, dtype)
    positions = torch.randint(0, 9, (3, 6))[:, :5]
    arguments = (q, k, positions if num_axes == 3 else positions[0], text_table(16, 9), [2, 3, 3])
    torch.library.opcheck(torch.ops.tessera.mrope_.default, arguments)


def test_refuses_arguments_that_do_not_fit() -> None:
    _, q, k = fused_views(5, 4, 2, 16)
    positions, table = torch.zeros(3, 5, dtype=torch.int64), text_table(16, 9)
    with pytest.raises(ValueError, match="sections"):
        mrope_(q, k, positions, table, [2, 3, 4])
    with pytest.raises(ValueError, match="positions"):
        mrope_(q, k, positions[:2], table, [2, 3, 3])
    with pytest.raises(ValueError, match="table"):
        mrope_(q[..., :8], k[..., :8], positions, table, [2, 3, 3])
    with pytest.raises(ValueError, match="fit together"):
        mrope_(q, k[:4], positions, table, [2, 3, 3])
    with pytest.raises(IndexError):
        mrope_(q, k, positions + 9, table, [2, 3, 3])
