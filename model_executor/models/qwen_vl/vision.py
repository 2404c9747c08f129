# mypy: allow-untyped-calls
"""Qwen-VL's vision tower: a ViT over the 1024 patches of an image, and a resampler that makes 256 embeddings of them.

Patches come in groups of 2 x 2 as for the other families. Nothing in the tower depends on their order but its position
tables, so these are brought into that order once. Attribute names equal checkpoint names, except for the patch
embedding and the projections of queries, keys and values.

Source: Qwen-VL report (arXiv 2308.12966) section 2.1 and its release.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.linear import ColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.models.utils import AutoWeightsLoader

from model_executor.kernels.vision_ops import attend
from model_executor.models.shared.flash import Spans, spans_of
from model_executor.models.shared.tower import FRAME_VALUES, NORM_EPS, PixelStatistics, joined
from model_executor.processor.geometry import CHANNELS, MERGE, PATCH_PX, Grid

RESAMPLER_HEAD_DIM = 128
MAX_PACK_IMAGES = 8
"""Images computed at a time."""


class Attention(nn.Module):
    """Full attention among the patches of each image, heads split over the tensor-parallel ranks."""

    def __init__(self, width: int, num_heads: int, prefix: str) -> None:
        """For a tower of this width with so many heads over all ranks."""
        super().__init__()
        self.head_dim = width // num_heads
        self.num_heads = num_heads // get_tensor_model_parallel_world_size()
        self.qkv = QKVParallelLinear(width, self.head_dim, num_heads, prefix=f"{prefix}.qkv", return_bias=False)
        self.out_proj = RowParallelLinear(width, width, prefix=f"{prefix}.out_proj", return_bias=False)

    def forward(self, x: torch.Tensor, sizes: list[int], spans: Spans | None) -> torch.Tensor:
        """[P, width] to [P, width]; `sizes` are the patches of each image."""
        q, k, v = self.qkv(x).view(-1, 3, self.num_heads, self.head_dim).unbind(1)
        attended = attend(q, k, v, sizes) if spans is None else spans.attend(q, k, v)
        return self.out_proj(attended.flatten(1))


class Mlp(nn.Module):
    """Two linear layers with exact GELU between them."""

    def __init__(self, width: int, inner: int, prefix: str) -> None:
        """For a tower of this width, `inner` wide between the layers."""
        super().__init__()
        self.c_fc = ColumnParallelLinear(width, inner, prefix=f"{prefix}.c_fc", return_bias=False)
        self.c_proj = RowParallelLinear(inner, width, prefix=f"{prefix}.c_proj", return_bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[P, width] to [P, width]."""
        return self.c_proj(functional.gelu(self.c_fc(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: Any, prefix: str) -> None:
        """By the checkpoint's vision config."""
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.attn = Attention(config.width, config.heads, f"{prefix}.attn")
        self.ln_2 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.mlp = Mlp(config.width, int(config.width * config.mlp_ratio), f"{prefix}.mlp")

    def forward(self, x: torch.Tensor, sizes: list[int], spans: Spans | None) -> torch.Tensor:
        """[P, width] to [P, width], in place."""
        x += self.attn(self.ln_1(x), sizes, spans)
        x += self.mlp(self.ln_2(x))
        return x


class Blocks(nn.Module):
    """The blocks, under the name they have in checkpoints."""

    def __init__(self, config: Any, prefix: str) -> None:
        """By the checkpoint's vision config."""
        super().__init__()
        self.resblocks = nn.ModuleList(Block(config, f"{prefix}.resblocks.{i}") for i in range(config.layers))


class Projections(nn.Module):
    """What goes into the resampler's attention and comes out of it; queries, keys and values are one matrix."""

    def __init__(self, hidden: int) -> None:
        """For embeddings of this width."""
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden, hidden), requires_grad=False)
        self.in_proj_bias = nn.Parameter(torch.empty(3 * hidden), requires_grad=False)
        self.out_proj = nn.Linear(hidden, hidden)


class Resampler(nn.Module):
    """Cross-attention of learned queries to the patches of an image; every rank computes all of it."""

    def __init__(self, width: int, hidden: int, num_queries: int, num_patches: int) -> None:
        """From the width of the tower to that of the language model."""
        super().__init__()
        self.key_positions: torch.Tensor
        self.num_heads = hidden // RESAMPLER_HEAD_DIM
        self.kv_proj = nn.Linear(width, hidden, bias=False)
        self.ln_kv = nn.LayerNorm(hidden, eps=NORM_EPS)
        self.ln_q = nn.LayerNorm(hidden, eps=NORM_EPS)
        self.query = nn.Parameter(torch.empty(num_queries, hidden), requires_grad=False)
        self.pos_embed = nn.Parameter(torch.empty(num_queries, hidden), requires_grad=False)
        self.attn = Projections(hidden)
        self.register_buffer("key_positions", torch.empty(num_patches, hidden), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[images, P, width] to [images, M, hidden]."""
        values = self.ln_kv(self.kv_proj(x))
        queries = (self.ln_q(self.query) + self.pos_embed).expand(len(x), -1, -1)
        weights, biases = self.attn.in_proj_weight.chunk(3), self.attn.in_proj_bias.chunk(3)
        q, k, v = (
            functional.linear(each, weight, bias).unflatten(-1, (self.num_heads, RESAMPLER_HEAD_DIM)).transpose(1, 2)
            for each, weight, bias in zip((queries, values + self.key_positions, values), weights, biases, strict=True)
        )
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.attn.out_proj(attended.transpose(1, 2).flatten(2))


class ResampledTower(nn.Module):
    """The whole tower."""

    def __init__(self, config: Any, statistics: PixelStatistics, _: QuantizationConfig | None, prefix: str) -> None:
        """Prepare the tower; the family's quantized checkpoints leave it as it is.

        Args:
            config: the checkpoint's vision config.
            statistics: of its pixels.
            prefix: name of this module in the model.
        """
        super().__init__()
        self.positions: torch.Tensor
        self.statistics = statistics
        width, hidden = config.width, config.output_dim
        side = config.image_size // PATCH_PX
        self.num_patches = side * side
        num_queries = self.num_patches // MERGE**2
        self.patch_weight = nn.Parameter(torch.empty(width, FRAME_VALUES, dtype=torch.float32), requires_grad=False)
        self.patch_bias = nn.Parameter(torch.empty(width, dtype=torch.float32), requires_grad=False)
        self.register_buffer("positions", torch.empty(self.num_patches, width), persistent=False)
        self.ln_pre = nn.LayerNorm(width, eps=NORM_EPS)
        self.transformer = Blocks(config, f"{prefix}.transformer")
        self.head_dim, self.num_heads = width // config.heads, config.heads
        self.attn_pool = Resampler(width, hidden, num_queries, self.num_patches)
        self.ln_post = nn.LayerNorm(hidden, eps=NORM_EPS)
        self.proj = nn.Parameter(torch.empty(hidden, hidden), requires_grad=False)

    @property
    def device(self) -> torch.device:
        """Where the tower is."""
        return self.patch_bias.device

    def forward(self, rows: Sequence[torch.Tensor], grids: Sequence[Grid]) -> list[torch.Tensor]:
        """Embed images.

        Args:
            rows: per image, uint8 [1024, 588], on the tower's device.
            grids: per image.

        Returns:
            Per image, [256, hidden] in the model's number format.
        """
        packs = [rows[start : start + MAX_PACK_IMAGES] for start in range(0, len(rows), MAX_PACK_IMAGES)]
        return [tokens for pack in packs for tokens in self._encode(pack)]

    def _encode(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        sizes, dtype = [self.num_patches] * len(rows), self.ln_pre.weight.dtype
        spans = spans_of(sizes, self.device, dtype, self.head_dim)
        x = functional.linear(joined(rows).float(), self.patch_weight, self.patch_bias).to(dtype)
        x = self.ln_pre(x + self.positions.repeat(len(rows), 1))
        for block in self.transformer.resblocks:
            x = block(x, sizes, spans)
        return self.ln_post(self.attn_pool(x.view(len(rows), self.num_patches, -1))) @ self.proj

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load the checkpoint's tensors, those of the patch embedding and the positions in the form that is used here.

        Raises:
            ValueError: a tensor of another shape.
        """
        loaded = AutoWeightsLoader(self).load_weights(self._converted(weights))
        return loaded | {"patch_weight", "patch_bias"}

    def _converted(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        for name, weight in weights:
            if name == "conv1.weight":
                self._fold(weight)
            elif name == "positional_embedding":
                self.positions.copy_(self._in_patch_order(weight))
            elif ".attn.in_proj." in name and name.startswith("transformer."):
                # Head after head, each with its rows of q, k and v; here q of all heads, then k, then v.
                by_head = weight.unflatten(0, (self.num_heads, 3, self.head_dim))
                yield name.replace(".in_proj.", ".qkv."), by_head.transpose(0, 1).flatten(0, 2)
            else:
                if name == "attn_pool.pos_embed":
                    self.attn_pool.key_positions.copy_(self._in_patch_order(weight))
                yield name, weight

    def _fold(self, weight: torch.Tensor) -> None:
        """The convolution [width, 3, 14, 14] as a matrix, with the normalization of pixels folded in."""
        mean, std = (
            torch.tensor(values, dtype=torch.float64).view(1, CHANNELS, 1, 1)
            for values in (self.statistics.mean, self.statistics.std)
        )
        exact = weight.to(device="cpu", dtype=torch.float64)
        self.patch_weight.copy_((exact / (255 * std)).flatten(1))
        self.patch_bias.copy_(-(exact * (mean / std)).flatten(1).sum(1))

    def _in_patch_order(self, table: torch.Tensor) -> torch.Tensor:
        """A square table of positions, widened to one row per patch, in the order of the patches.

        Bicubic, in float32, rounded to the table's number format, as the release does when it loads.
        """
        side, target = math.isqrt(len(table)), math.isqrt(self.num_patches)
        wide = table.float().view(1, side, side, -1).permute(0, 3, 1, 2)
        if side != target:
            wide = functional.interpolate(wide, (target, target), mode="bicubic", align_corners=False)
        grid = wide[0].permute(1, 2, 0).to(table.dtype)
        groups = grid.unflatten(0, (-1, MERGE)).unflatten(2, (-1, MERGE)).transpose(1, 2)
        return groups.reshape(self.num_patches, -1)
