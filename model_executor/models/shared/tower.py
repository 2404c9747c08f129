"""What Qwen2-VL's and Qwen2.5-VL's vision towers share: patch embedding, attention in slices, and packing.

Attention never leaves a temporal slice (one image, or two frames of a video), so slices are packed and computed some
at a time and memory stays bounded however long a video is. Attribute names equal checkpoint names.

Twins that must agree: `model_executor/processor/patches.py` makes the rows in the order this file expects (2x2
groups together; within a row: channel, frame, y, x).

Source: Qwen2-VL report (arXiv 2409.12191) section 2.1; transformers' modeling_qwen2_vl.py for the parameters.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.linear import ColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.quantization import QuantizationConfig

from model_executor.kernels.mrope import cos_sin_table, inverse_frequencies, mrope_
from model_executor.kernels.vision_ops import attend
from model_executor.models.shared.flash import Spans, spans_of
from model_executor.processor.geometry import CHANNELS, MERGE, PATCH_PX, TEMPORAL_PATCH_FRAMES, Grid

FRAME_VALUES = CHANNELS * PATCH_PX * PATCH_PX
"""Values of one patch in one frame; a row holds this many for an image and twice as many for a video."""
MAX_PACK_PATCHES = 8192
"""Patches computed at a time; one slice larger than this is computed alone."""
ROPE_THETA = 10_000.0
NORM_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class PixelStatistics:
    """Mean and standard deviation per channel, of pixels in 0..1, that the checkpoint was trained with."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class PatchEmbed(nn.Module):
    """The depth-2 3-D convolution as two matrix products, with pixel normalization folded in.

    (x/255 - mean)/std is affine, so it goes into weight and bias, in float64 at load; the folded weight stays float32,
    since folding into bfloat16 would double its error. An image is two equal frames, so its two temporal halves of
    the weight are summed and its pixels are sent once.
    """

    def __init__(self, width: int, statistics: PixelStatistics) -> None:
        """For a tower of this width, and pixels normalized by these statistics."""
        super().__init__()
        self.statistics = statistics
        clip_values = TEMPORAL_PATCH_FRAMES * FRAME_VALUES
        self.clip_weight = nn.Parameter(torch.empty(width, clip_values, dtype=torch.float32), requires_grad=False)
        self.still_weight = nn.Parameter(torch.empty(width, FRAME_VALUES, dtype=torch.float32), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(width, dtype=torch.float32), requires_grad=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Embed uint8 rows [P, 588] (image) or [P, 1176] (video) to float32 [P, width]."""
        weight = self.still_weight if rows.shape[1] == FRAME_VALUES else self.clip_weight
        return functional.linear(rows.float(), weight, self.bias)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Fold the checkpoint's one tensor, `proj.weight` [width, 3, 2, 14, 14], into the parameters.

        Raises:
            ValueError: another tensor, or another shape.
        """
        for name, weight in weights:
            expected = (self.bias.shape[0], CHANNELS, TEMPORAL_PATCH_FRAMES, PATCH_PX, PATCH_PX)
            if name != "proj.weight" or tuple(weight.shape) != expected:
                raise ValueError(f"patch_embed.{name} {tuple(weight.shape)} where proj.weight {expected} was expected")
            mean, std = (
                torch.tensor(values, dtype=torch.float64).view(1, CHANNELS, 1, 1, 1)
                for values in (self.statistics.mean, self.statistics.std)
            )
            exact = weight.to(device="cpu", dtype=torch.float64)
            scaled = exact / (255 * std)
            self.clip_weight.copy_(scaled.flatten(1))
            self.still_weight.copy_(scaled.sum(2).flatten(1))
            self.bias.copy_(-(exact * (mean / std)).flatten(1).sum(1))
        return {"clip_weight", "still_weight", "bias"}


@dataclass(frozen=True, slots=True)
class Pack:
    """Slices computed together, and what all blocks share about them."""

    sizes: list[int]
    """Patches of every slice."""
    spans: Spans | None
    """The same for FlashAttention; None where it does not run."""
    positions: torch.Tensor
    """int64 [2, P]: row and column of every patch in its slice."""
    cos_sin: torch.Tensor
    """float32 [largest side, head_dim], for `mrope_`."""
    section: list[int]
    """Rotary pairs for row and column."""


Slice = tuple[torch.Tensor, tuple[int, int]]
"""Patch rows of one temporal slice, and its height and width in patches."""


class VisionAttention(nn.Module):
    """Full attention inside each temporal slice, heads split over the tensor-parallel ranks."""

    def __init__(self, width: int, num_heads: int, quant_config: QuantizationConfig | None, prefix: str) -> None:
        """For a tower of this width with so many heads over all ranks; the rest as in the towers."""
        super().__init__()
        self.head_dim = width // num_heads
        self.num_heads = num_heads // get_tensor_model_parallel_world_size()
        self.qkv = QKVParallelLinear(
            width, self.head_dim, num_heads, quant_config=quant_config, prefix=f"{prefix}.qkv", return_bias=False
        )
        self.proj = RowParallelLinear(
            width, width, quant_config=quant_config, prefix=f"{prefix}.proj", return_bias=False
        )

    def forward(self, x: torch.Tensor, pack: Pack) -> torch.Tensor:
        """Attend within the slices of `pack`; x and result [P, width]."""
        q, k, v = self.qkv(x).view(-1, 3, self.num_heads, self.head_dim).unbind(1)
        mrope_(q, k, pack.positions, pack.cos_sin, pack.section)
        attended = attend(q, k, v, pack.sizes) if pack.spans is None else pack.spans.attend(q, k, v)
        return self.proj(attended.flatten(1))


class VisionBlock(nn.Module):
    """Pre-norm transformer block; families differ in its norms and its MLP."""

    def __init__(self, norm1: nn.Module, attn: VisionAttention, norm2: nn.Module, mlp: nn.Module) -> None:
        """Of these parts."""
        super().__init__()
        self.norm1 = norm1
        self.attn = attn
        self.norm2 = norm2
        self.mlp = mlp

    def forward(self, x: torch.Tensor, pack: Pack) -> torch.Tensor:
        """[P, width] to [P, width], in place."""
        x += self.attn(self.norm1(x), pack)
        x += self.mlp(self.norm2(x))
        return x


class PatchMerger(nn.Module):
    """Four neighboring patches to one embedding of the language model."""

    def __init__(
        self, width: int, hidden: int, norm: nn.Module, quant_config: QuantizationConfig | None, prefix: str
    ) -> None:
        """From the width of the tower to that of the language model, after `norm`; the rest as in the towers."""
        super().__init__()
        merged = width * MERGE * MERGE
        self.ln_q = norm
        self.mlp = nn.Sequential(
            ColumnParallelLinear(
                merged, merged, quant_config=quant_config, prefix=f"{prefix}.mlp.0", return_bias=False
            ),
            nn.GELU(),
            RowParallelLinear(merged, hidden, quant_config=quant_config, prefix=f"{prefix}.mlp.2", return_bias=False),
        )

    @property
    def dtype(self) -> torch.dtype:
        """The model's number format."""
        return next(self.ln_q.parameters()).dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[P, width] to [M, hidden], M = P/4."""
        return self.mlp(self.ln_q(x).view(-1, x.shape[1] * MERGE * MERGE))


class Tower(Protocol):
    """What the model needs of a vision tower."""

    @property
    def device(self) -> torch.device:
        """Where it is."""

    def __call__(self, rows: Sequence[torch.Tensor], grids: Sequence[Grid]) -> list[torch.Tensor]:
        """As `SlicedTower.forward`."""


class SlicedTower(nn.Module):
    """Splits media into temporal slices and computes them in packs; a family adds its blocks and what `encode` does."""

    def __init__(self, width: int, num_heads: int, statistics: PixelStatistics) -> None:
        """Prepare the parts that all families have.

        Args:
            width: of the tower.
            num_heads: over all ranks.
            statistics: of the checkpoint's pixels.
        """
        super().__init__()
        self.frequencies: torch.Tensor
        self.patch_embed = PatchEmbed(width, statistics)
        self.head_dim = width // num_heads
        half = self.head_dim // 2
        frequencies = inverse_frequencies(half, ROPE_THETA)
        self.register_buffer("frequencies", torch.cat([frequencies, frequencies]), persistent=False)
        self.section = [half // 2, half // 2]

    def forward(self, rows: Sequence[torch.Tensor], grids: Sequence[Grid]) -> list[torch.Tensor]:
        """Embed media.

        Args:
            rows: per item, uint8 [P, 588] (image) or [P, 1176] (video), on the tower's device.
            grids: per item; P = t*h*w.

        Returns:
            Per item, [P/4, hidden] in the model's number format.
        """
        slices = [
            (piece, (grid.h, grid.w))
            for item, grid in zip(rows, grids, strict=True)
            for piece in torch.split(item, grid.h * grid.w)
        ]
        tokens = joined([self.encode(pack) for pack in _packs(slices)])
        return list(torch.split(tokens, [grid.num_tokens for grid in grids]))

    @property
    def device(self) -> torch.device:
        """Where the tower is."""
        return self.patch_embed.bias.device

    def encode(self, slices: Sequence[Slice]) -> torch.Tensor:
        """Embeddings [M, hidden] of slices that are computed together."""
        raise NotImplementedError

    def embed(self, slices: Sequence[Slice], dtype: torch.dtype) -> tuple[torch.Tensor, Pack]:
        """Patch embeddings [P, width] in a number format, and what the blocks need to know of the slices."""
        sides = [side for _, side in slices]
        runs = [(len(list(same)), side) for side, same in groupby(sides)]
        sizes = [h * w for h, w in sides]
        device = self.frequencies.device
        pack = Pack(
            sizes=sizes,
            spans=spans_of(sizes, device, dtype, self.head_dim),
            positions=torch.cat([_positions(h, w, device).repeat(1, n) for n, (h, w) in runs], dim=1),
            cos_sin=cos_sin_table(max(map(max, sides)), self.frequencies),
            section=self.section,
        )
        # A video's many slices are embedded together; joining them as bytes costs least.
        stretches = groupby((rows for rows, _ in slices), key=lambda rows: rows.shape[1])
        embedded = [self.patch_embed(joined(list(stretch))) for _, stretch in stretches]
        return joined(embedded).to(dtype), pack


def joined(pieces: Sequence[torch.Tensor]) -> torch.Tensor:
    """Along the first axis; a single piece is not copied."""
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))


def _packs(slices: Iterable[Slice]) -> Iterator[list[Slice]]:
    """Cut the slices, in order, into groups of at most MAX_PACK_PATCHES patches."""
    pack: list[Slice] = []
    num_patches = 0
    for piece in slices:
        if pack and num_patches + piece[0].shape[0] > MAX_PACK_PATCHES:
            yield pack
            pack, num_patches = [], 0
        pack.append(piece)
        num_patches += piece[0].shape[0]
    if pack:
        yield pack


def _positions(h: int, w: int, device: torch.device) -> torch.Tensor:
    """Row and column of a slice's patches in the order of its rows (2x2 groups together): int64 [2, h*w]."""
    grid = torch.stack(torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij"))
    return grid.view(2, h // MERGE, MERGE, w // MERGE, MERGE).transpose(2, 3).reshape(2, h * w)
