# mypy: allow-untyped-calls
"""Qwen2.5-VL's vision tower: windows of 112 x 112 pixels in most blocks, whole slices in a few.

The patches of a slice are reordered window by window, so that every window is a run, and their embeddings are put back
in the order of the image at the end. Attribute names equal checkpoint names.

Source: Qwen2.5-VL report (arXiv 2502.13923) section 2.1.1; transformers' modeling_qwen2_5_vl.py for the parameters.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import ColumnParallelLinear, RowParallelLinear
from vllm.model_executor.layers.quantization import QuantizationConfig

from model_executor.models.shared.flash import spans_of
from model_executor.models.shared.tower import (
    NORM_EPS,
    PatchMerger,
    PixelStatistics,
    Slice,
    SlicedTower,
    VisionAttention,
    VisionBlock,
)
from model_executor.processor.geometry import FACTOR_PX, MERGE


class GatedMlp(nn.Module):
    """SwiGLU with biases: `down(silu(gate(x)) * up(x))`."""

    def __init__(self, width: int, inner: int, quant_config: QuantizationConfig | None, prefix: str) -> None:
        """For a tower of this width, `inner` wide between the layers; the rest as in `WindowTower`."""
        super().__init__()

        def into(name: str) -> ColumnParallelLinear:
            return ColumnParallelLinear(
                width, inner, quant_config=quant_config, prefix=f"{prefix}.{name}", return_bias=False
            )

        self.gate_proj, self.up_proj = into("gate_proj"), into("up_proj")
        self.down_proj = RowParallelLinear(
            inner, width, quant_config=quant_config, prefix=f"{prefix}.down_proj", return_bias=False
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[P, width] to [P, width]."""
        return self.down_proj(functional.silu(self.gate_proj(x)).mul_(self.up_proj(x)))


class WindowTower(SlicedTower):
    """The whole tower."""

    def __init__(
        self, config: Any, statistics: PixelStatistics, quant_config: QuantizationConfig | None, prefix: str
    ) -> None:
        """Prepare the tower.

        Args:
            config: the checkpoint's vision config.
            statistics: of its pixels.
            quant_config: says by their names which linear layers are quantized; None: none is.
            prefix: name of this module in the model.
        """
        width = config.hidden_size
        super().__init__(width, config.num_heads, statistics)
        self.window_tokens = config.window_size // FACTOR_PX
        self.whole_slice_blocks = frozenset(config.fullatt_block_indexes)

        def norm() -> RMSNorm:
            return RMSNorm(width, eps=NORM_EPS)

        def block(prefix: str) -> VisionBlock:
            attn = VisionAttention(width, config.num_heads, quant_config, f"{prefix}.attn")
            mlp = GatedMlp(width, config.intermediate_size, quant_config, f"{prefix}.mlp")
            return VisionBlock(norm(), attn, norm(), mlp)

        self.blocks = nn.ModuleList(block(f"{prefix}.blocks.{i}") for i in range(config.depth))
        self.merger = PatchMerger(width, config.out_hidden_size, norm(), quant_config, f"{prefix}.merger")

    def encode(self, slices: Sequence[Slice]) -> torch.Tensor:
        """As `SlicedTower.encode`."""
        dtype = self.merger.dtype
        x, by_slice = self.embed(slices, dtype)
        order, sizes = self._windows([side for _, side in slices], x.device)
        patches = (order[:, None] * MERGE**2 + torch.arange(MERGE**2, device=x.device)).flatten()
        x = x[patches]
        by_slice = replace(by_slice, positions=by_slice.positions[:, patches])
        by_window = replace(by_slice, sizes=sizes, spans=spans_of(sizes, x.device, dtype, self.head_dim))
        for index, block in enumerate(self.blocks):
            x = block(x, by_slice if index in self.whole_slice_blocks else by_window)
        tokens = self.merger(x)
        return torch.empty_like(tokens).index_copy_(0, order, tokens)

    def _windows(self, sides: Sequence[tuple[int, int]], device: torch.device) -> tuple[torch.Tensor, list[int]]:
        """The order of the slices' tokens window by window, int64 [M], and the patches of each window."""
        orders, sizes, start = [], [], 0
        for h, w in sides:
            order, own = _window_order(h // MERGE, w // MERGE, self.window_tokens)
            orders.append(order + start)
            sizes += own
            start += len(order)
        return torch.cat(orders).to(device, non_blocking=True), sizes


@lru_cache(maxsize=64)
def _window_order(rows: int, columns: int, side: int) -> tuple[torch.Tensor, list[int]]:
    """The tokens of a slice of rows x columns tokens, window by window, and the patches of each window.

    Windows are `side` x `side` tokens, in reading order, and smaller where the slice ends; so are tokens within one.
    """
    tokens = torch.arange(rows * columns).view(rows, columns)
    windows = [window.flatten() for band in tokens.split(side) for window in band.split(side, dim=1)]
    return torch.cat(windows), [len(window) * MERGE**2 for window in windows]
