"""Qwen2.5-VL's vision tower by itself against transformers' tower on the same weights."""

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from model_executor.processor.geometry import Grid
from tests.engine.test_vision import normalized
from tests.support.oracle import MEAN, STD, Oracle

pytestmark = [pytest.mark.engine, pytest.mark.slow]

# Windows are 8 x 8 patches: one alone, whole ones, cut ones at the right and at the bottom, clips of several slices.
GRIDS = [Grid(1, 2, 2), Grid(1, 16, 8), Grid(1, 10, 22), Grid(1, 22, 10), Grid(3, 12, 8), Grid(2, 2, 18)]
NUM_FRAMES = [1, 1, 1, 1, 2, 2]


@pytest.fixture(scope="module")
def rows() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(grid.num_patches, 588 * frames) for grid, frames in zip(GRIDS, NUM_FRAMES, strict=True)]
    return [torch.randint(0, 256, size, generator=generator, dtype=torch.uint8) for size in sizes]


@pytest.fixture(scope="module")
def expected(window_oracle: Oracle, rows: list[torch.Tensor]) -> torch.Tensor:
    grids = torch.tensor([(grid.t, grid.h, grid.w) for grid in GRIDS])
    pixels = torch.cat([normalized(each) for each in rows])
    with torch.no_grad():
        return torch.as_tensor(window_oracle.network.model.visual(pixels, grids).pooler_output)


@pytest.fixture
def weights(world: None, window_oracle: Oracle) -> dict[str, torch.Tensor]:
    return dict(window_oracle.network.model.visual.state_dict())


def loaded(weights: Mapping[str, torch.Tensor], oracle: Oracle, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Our tower of the oracle's sizes with some weights, in a number format."""
    from vllm.model_executor.models.utils import AutoWeightsLoader

    from model_executor.models.qwen2_5_vl.vision import WindowTower
    from model_executor.models.shared.tower import PixelStatistics

    statistics = PixelStatistics((MEAN[0], MEAN[1], MEAN[2]), (STD[0], STD[1], STD[2]))
    ours = WindowTower(oracle.network.model.visual.config, statistics, None, "visual")
    AutoWeightsLoader(ours).load_weights(weights.items())
    for name, parameter in ours.named_parameters():
        if not name.startswith("patch_embed"):
            parameter.data = parameter.data.to(dtype)
    for module in ours.modules():
        if method := getattr(module, "quant_method", None):
            method.process_weights_after_loading(module)
    return ours


@torch.no_grad()
def error_of(tower: nn.Module, rows: list[torch.Tensor], expected: torch.Tensor) -> float:
    """Distance from what is expected, in shares of its length."""
    got = torch.cat(tower(rows, GRIDS)).float()
    return float((got - expected).norm() / expected.norm())


@torch.no_grad()
def test_equals_transformers_for_windows_of_every_cut(
    weights: dict[str, torch.Tensor], window_oracle: Oracle, rows: list[torch.Tensor], expected: torch.Tensor
) -> None:
    got = loaded(weights, window_oracle)(rows, GRIDS)
    assert [len(embeddings) for embeddings in got] == [grid.num_tokens for grid in GRIDS]
    assert torch.allclose(torch.cat(got), expected, rtol=1e-4, atol=1e-4)


def test_packing_changes_nothing(
    weights: dict[str, torch.Tensor],
    window_oracle: Oracle,
    rows: list[torch.Tensor],
    expected: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from model_executor.models.shared import tower

    monkeypatch.setattr(tower, "MAX_PACK_PATCHES", 100)
    assert error_of(loaded(weights, window_oracle), rows, expected) < 1e-5


def test_a_swapped_gate_is_noticed(
    weights: dict[str, torch.Tensor], window_oracle: Oracle, rows: list[torch.Tensor], expected: torch.Tensor
) -> None:
    for kind in ("weight", "bias"):
        gate, up = f"blocks.0.mlp.gate_proj.{kind}", f"blocks.0.mlp.up_proj.{kind}"
        weights[gate], weights[up] = weights[up], weights[gate]
    assert error_of(loaded(weights, window_oracle), rows, expected) > 0.05


@pytest.mark.parametrize("side", [3, 1000])
def test_windows_of_another_size_are_noticed(
    weights: dict[str, torch.Tensor],
    window_oracle: Oracle,
    rows: list[torch.Tensor],
    expected: torch.Tensor,
    side: int,
) -> None:
    """Smaller windows, and none at all."""
    tower = loaded(weights, window_oracle)
    tower.window_tokens = side  # type: ignore[assignment]
    assert error_of(tower, rows, expected) > 0.05


def test_bfloat16_stays_close(
    weights: dict[str, torch.Tensor], window_oracle: Oracle, rows: list[torch.Tensor], expected: torch.Tensor
) -> None:
    assert error_of(loaded(weights, window_oracle, torch.bfloat16), rows, expected) < 0.03
