"""The vision tower by itself against transformers' tower on the same weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from model_executor.cpu import has_int8_tiles
from model_executor.processor.geometry import Grid
from tests.engine.quantised import CONFIGS, quantise_activations, write_quantised
from tests.support.oracle import MEAN, STD, Oracle

pytestmark = pytest.mark.engine

GRIDS = [Grid(1, 4, 6), Grid(1, 4, 6), Grid(3, 2, 8), Grid(1, 10, 2), Grid(2, 2, 8)]
NUM_FRAMES = [1, 1, 2, 1, 2]


@pytest.fixture(scope="module")
def tower(world: None, oracle: Oracle) -> nn.Module:
    """Our tower with the oracle's weights."""
    return loaded(oracle.network.model.visual.state_dict(), oracle, None)


def loaded(weights: Mapping[str, torch.Tensor], oracle: Oracle, quant_config: Any) -> nn.Module:
    """Our tower of the oracle's sizes with some weights."""
    from vllm.model_executor.models.utils import AutoWeightsLoader

    from model_executor.models.qwen2_vl.vision import VisionTower
    from model_executor.models.shared.tower import PixelStatistics

    statistics = PixelStatistics((MEAN[0], MEAN[1], MEAN[2]), (STD[0], STD[1], STD[2]))
    ours = VisionTower(oracle.network.model.visual.config, statistics, quant_config, "visual")
    AutoWeightsLoader(ours).load_weights(weights.items())
    for module in ours.modules():
        if method := getattr(module, "quant_method", None):
            method.process_weights_after_loading(module)
    return ours


@pytest.fixture(scope="module")
def rows() -> list[torch.Tensor]:
    generator = np.random.default_rng(0)
    sizes = [(grid.num_patches, 588 * frames) for grid, frames in zip(GRIDS, NUM_FRAMES, strict=True)]
    return [torch.from_numpy(generator.integers(0, 256, size, dtype=np.uint8)) for size in sizes]


def normalized(rows: torch.Tensor) -> torch.Tensor:
    """As transformers takes them: float32 [P, 1176], a picture's one frame twice."""
    frames = rows.shape[1] // 588
    pixels = rows.numpy().reshape(-1, 3, frames, 196) / 255
    scaled = (pixels - MEAN[:, None, None]) / STD[:, None, None]
    return torch.from_numpy(np.repeat(scaled, 2 // frames, axis=2).reshape(-1, 1176).astype(np.float32))


@torch.no_grad()
def test_equals_transformers_for_pictures_and_clips_packed_together(
    tower: nn.Module, oracle: Oracle, rows: list[torch.Tensor]
) -> None:
    grids = torch.tensor([(grid.t, grid.h, grid.w) for grid in GRIDS])
    expected = oracle.network.model.visual(torch.cat([normalized(r) for r in rows]), grids).pooler_output
    got = tower(rows, GRIDS)
    assert [len(embeddings) for embeddings in got] == [grid.num_tokens for grid in GRIDS]
    assert torch.allclose(torch.cat(got), expected, rtol=1e-4, atol=2e-5)


@torch.no_grad()
def test_a_quantised_tower_equals_transformers_on_the_dequantised_weights(
    world: None, oracle: Oracle, rows: list[torch.Tensor], tmp_path: Path
) -> None:
    from vllm.model_executor.layers.quantization import get_quantization_config
    from vllm.utils.torch_utils import set_default_torch_dtype

    write_quantised(oracle.folder, tmp_path / "quantised", tmp_path / "plain", "w8a8")
    config = get_quantization_config("compressed-tensors").from_config(CONFIGS["w8a8"])
    weights = load_file(tmp_path / "quantised" / "model.safetensors")
    own = {name.removeprefix("visual."): value for name, value in weights.items() if name.startswith("visual.")}
    theirs = Oracle(tmp_path / "plain").network.model.visual
    quantise_activations(theirs)
    grids = torch.tensor([(grid.t, grid.h, grid.w) for grid in GRIDS])
    expected = theirs(torch.cat([normalized(r) for r in rows]), grids).pooler_output
    # With AMX, vLLM's scaled products take 16-bit activations only.
    dtype, bound = (torch.bfloat16, 0.1) if has_int8_tiles() else (torch.float32, 0.05)
    with set_default_torch_dtype(dtype):
        got = torch.cat(loaded(own, oracle, config)(rows, GRIDS)).float()
    # A last bit may move an activation over a rounding border, and the next layers with it; more than that is a fault.
    assert (got - expected).norm() < bound * expected.norm()


@torch.no_grad()
@pytest.mark.parametrize("max_patches", [1, 24, 40, 10**9])
def test_packing_changes_nothing(
    tower: nn.Module, rows: list[torch.Tensor], max_patches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_executor.models.shared import tower as shared_tower

    alone = [tower([r], [grid])[0] for r, grid in zip(rows, GRIDS, strict=True)]
    monkeypatch.setattr(shared_tower, "MAX_PACK_PATCHES", max_patches)
    for single, packed in zip(alone, tower(rows, GRIDS), strict=True):
        assert torch.allclose(single, packed, rtol=1e-4, atol=2e-5)


@torch.no_grad()
def test_attention_stays_inside_a_temporal_slice(tower: nn.Module, rows: list[torch.Tensor]) -> None:
    clip, grid = rows[2].clone(), GRIDS[2]
    before = tower([clip], [grid])[0]
    clip[: grid.h * grid.w] = 255 - clip[: grid.h * grid.w]
    after = tower([clip], [grid])[0]
    per_slice = grid.h * grid.w // 4
    assert not torch.allclose(before[:per_slice], after[:per_slice], atol=1e-2)
    assert torch.equal(before[per_slice:], after[per_slice:])


def test_folded_patch_embedding_is_exact_to_float32(tower: nn.Module, oracle: Oracle, rows: list[torch.Tensor]) -> None:
    weight = oracle.network.model.visual.patch_embed.proj.weight.double().flatten(1)
    for medium in rows:
        pixels = medium.numpy().reshape(-1, 3, medium.shape[1] // 588, 196) / 255
        scaled = np.repeat((pixels - MEAN[:, None, None]) / STD[:, None, None], 1176 // medium.shape[1], axis=2)
        exact = torch.from_numpy(scaled.reshape(-1, 1176)) @ weight.T
        got = tower.patch_embed(medium).double()  # type: ignore[operator]
        assert ((got - exact).abs().max() / exact.abs().max()) < 2e-6
