"""The vision tower on a CUDA device, in the number format it serves in there, against transformers in float32."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from model_executor.processor.geometry import Grid
from tests.engine.test_vision import GRIDS, loaded, normalized, rows  # noqa: F401  # fixtures among them
from tests.support.oracle import Oracle

pytestmark = [pytest.mark.engine, pytest.mark.gpu]

ERROR = 0.03
"""Of an embedding, relative to its norm, after bfloat16's rounding in every layer."""


@pytest.fixture(scope="module")
def tower(world: None, oracle: Oracle) -> Iterator[nn.Module]:
    """Our tower as vLLM loads it: bfloat16, the folded patch embedding in float32."""
    ours = loaded(oracle.network.model.visual.state_dict(), oracle, None)
    ours.blocks.to(torch.bfloat16)
    ours.merger.to(torch.bfloat16)
    yield ours.cuda()
    ours.cpu()


@torch.no_grad()
def test_equals_transformers_for_slices_of_all_sizes_in_one_pack(
    tower: nn.Module,
    oracle: Oracle,
    rows: list[torch.Tensor],  # noqa: F811
) -> None:
    grids = torch.tensor([(grid.t, grid.h, grid.w) for grid in GRIDS])
    expected = oracle.network.model.visual(torch.cat([normalized(r) for r in rows]), grids).pooler_output
    got = torch.cat(tower([r.cuda() for r in rows], GRIDS)).cpu().float()
    assert (got - expected).norm() < ERROR * expected.norm()
    alone = torch.cat([tower([r.cuda()], [grid])[0] for r, grid in zip(rows, GRIDS, strict=True)]).cpu().float()
    assert (got - alone).norm() < ERROR * alone.norm()


@torch.no_grad()
def test_a_slice_of_many_patches_equals_transformers(tower: nn.Module, oracle: Oracle) -> None:
    grid = Grid(1, 36, 48)
    patches = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (grid.num_patches, 588), dtype=np.uint8))
    expected = oracle.network.model.visual(normalized(patches), torch.tensor([(1, 36, 48)])).pooler_output
    got = tower([patches.cuda()], [grid])[0].cpu().float()
    assert (got - expected).norm() < ERROR * expected.norm()


def test_the_tower_attends_by_flash_attention_where_vllm_has_it() -> None:
    from model_executor.models.shared.flash import spans_of

    device = torch.device("cuda")
    spans = spans_of([4, 9], device, torch.bfloat16, 80)
    assert spans is not None and spans.bounds.tolist() == [0, 4, 13] and spans.longest == 9
    assert spans_of([4, 9], device, torch.float32, 80) is None
