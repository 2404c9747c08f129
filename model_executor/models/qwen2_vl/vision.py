"""Qwen2-VL's vision tower: uint8 patches of any number of images and videos in, one embedding per merged token out.

Attribute names equal checkpoint names.

Source: Qwen2-VL report (arXiv 2409.12191) section 2.1; transformers' modeling_qwen2_vl.py for the parameters.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from vllm.model_executor.layers.linear import ColumnParallelLinear, RowParallelLinear
from vllm.model_executor.layers.quantization import QuantizationConfig

from model_executor.kernels.vision_ops import quick_gelu_
from model_executor.models.shared.tower import (
    NORM_EPS,
    PatchMerger,
    PixelStatistics,
    Slice,
    SlicedTower,
    VisionAttention,
    VisionBlock,
)


class VisionMlp(nn.Module):
    """Two linear layers with QuickGELU, x * sigmoid(1.702 x), between them."""

    def __init__(self, width: int, inner: int, quant_config: QuantizationConfig | None, prefix: str) -> None:
        """For a tower of this width, `inner` wide between the layers; the rest as in `VisionTower`."""
        super().__init__()
        self.fc1 = ColumnParallelLinear(
            width, inner, quant_config=quant_config, prefix=f"{prefix}.fc1", return_bias=False
        )
        self.fc2 = RowParallelLinear(inner, width, quant_config=quant_config, prefix=f"{prefix}.fc2", return_bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[P, width] to [P, width]."""
        return self.fc2(quick_gelu_(self.fc1(x)))


class VisionTower(SlicedTower):
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
        width = config.embed_dim
        super().__init__(width, config.num_heads, statistics)

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(width, eps=NORM_EPS)

        def block(prefix: str) -> VisionBlock:
            attn = VisionAttention(width, config.num_heads, quant_config, f"{prefix}.attn")
            mlp = VisionMlp(width, int(width * config.mlp_ratio), quant_config, f"{prefix}.mlp")
            return VisionBlock(norm(), attn, norm(), mlp)

        self.blocks = nn.ModuleList(block(f"{prefix}.blocks.{i}") for i in range(config.depth))
        self.merger = PatchMerger(width, config.hidden_size, norm(), quant_config, f"{prefix}.merger")

    def encode(self, slices: Sequence[Slice]) -> torch.Tensor:
        """As `SlicedTower.encode`."""
        x, pack = self.embed(slices, self.merger.dtype)
        for block in self.blocks:
            x = block(x, pack)
        return self.merger(x)
