"""The rotation inside compiled code: right, and without copies of what queries, keys and values are views of."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch._inductor import config as inductor
from torch._inductor.utils import run_and_get_code

from model_executor.kernels.mrope import cos_sin_table, inverse_frequencies, mrope_, rotated

HEADS, KV_HEADS, DIM, SECTION = 4, 2, 32, [4, 6, 6]
SIZES = [HEADS * DIM, KV_HEADS * DIM, KV_HEADS * DIM]
TABLE = cos_sin_table(100, inverse_frequencies(DIM, 1e6))

Rotation = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def between_attentions(
    rotation: Rotation, x: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The piece of a layer that vLLM compiles as one: up to attention. The sum stands for the product before it."""
    q, k, v = torch.split(x + 1, SIZES, dim=-1)
    q, k = rotation(q.view(-1, HEADS, DIM), k.view(-1, KV_HEADS, DIM), positions, TABLE, SECTION)
    return q.flatten(1), k.flatten(1), v


def in_place(q: torch.Tensor, k: torch.Tensor, *rest: object) -> tuple[torch.Tensor, torch.Tensor]:
    mrope_(q, k, *rest)  # type: ignore[arg-type]
    return q, k


def arguments() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(7, sum(SIZES), generator=torch.Generator().manual_seed(1)), torch.arange(21).view(3, 7)


def compiled(rotation: Rotation) -> tuple[tuple[torch.Tensor, ...], int]:
    """What the compiled piece returns, and how many loops over memory it has besides the operator."""
    torch._dynamo.reset()
    # As vLLM sets it.
    with inductor.patch(enable_auto_functionalized_v2=False, force_disable_caches=True):
        piece = torch.compile(partial(between_attentions, rotation), dynamic=True)
        result, (code,) = run_and_get_code(piece, *arguments())
    return result, code.count("cpp_fused_") - code.count("cpp_pybinding")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch warns of itself while it compiles
def test_nothing_is_copied_around_the_rotation() -> None:
    result, num_loops = compiled(rotated)
    x, positions = arguments()
    for got, expected in zip(result, between_attentions(in_place, x, positions), strict=True):
        assert torch.equal(got, expected)
    assert num_loops == 1, "the sum is all there is to compute"
    assert compiled(in_place)[1] > 1, "what changes its arguments is given copies, which this test would see"
