"""Qwen2-VL for training on a CPU: plain PyTorch, flat sequences, names of weights as in the released checkpoints.

Tokens and patches of a batch lie flat; attention alone is done in groups of sequences of like length, padded. The test
beside this file holds it equal to transformers' model.

Source: Qwen2-VL report (arXiv 2409.12191) section 2.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_executor.checkpoint.config import CLIP_MEAN, CLIP_STD
from training.batch import Batch
from training.recipe import Shape

PATCH_PX = 14
GROUP_SAMPLES = 8
"""Sequences that are padded to one length for attention."""


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences attended together: `index` [S, L] into the flat rows (0 where padded), `mask` bool [S, 1, L, L]."""

    index: Tensor
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Layout:
    """How flat rows fall into groups, and where each row's result lies in the groups' padded results [N]."""

    groups: tuple[Group, ...]
    back: Tensor


def layout(lengths: np.ndarray, branches: np.ndarray | None, order: Sequence[np.ndarray]) -> Layout:
    """Group sequences for attention.

    Args:
        lengths: int [S], rows of each sequence; sequences lie one after another.
        branches: int [N] for causal attention within branches; None for full attention.
        order: the groups, as indices of sequences.
    """
    starts = np.cumsum(lengths) - lengths
    back = np.empty(int(lengths.sum()), np.int64)
    groups, done = [], 0
    for members in order:
        longest = int(lengths[members].max())
        steps = np.arange(longest)
        valid = steps[None] < lengths[members][:, None]
        index = np.where(valid, starts[members][:, None] + steps[None], 0)
        back[index[valid]] = done + np.flatnonzero(valid.reshape(-1))
        done += index.size
        groups.append(Group(torch.from_numpy(index), _mask(valid, None if branches is None else branches[index])))
    return Layout(tuple(groups), torch.from_numpy(back))


def _mask(valid: np.ndarray, branches: np.ndarray | None) -> Tensor | None:
    """Who sees whom; a padded row sees itself, so that its softmax stays finite."""
    length = valid.shape[1]
    if branches is None:
        if valid.all():
            return None
        return torch.from_numpy((valid[:, None, :] | np.eye(length, dtype=bool))[:, None])
    mine, theirs = branches[:, :, None], branches[:, None, :]
    seen = np.tril(np.ones((length, length), bool)) & ((theirs == 0) | (theirs == mine)) & valid[:, None, :]
    return torch.from_numpy((seen | np.eye(length, dtype=bool))[:, None])


def attend(query: Tensor, key: Tensor, value: Tensor, where: Layout) -> Tensor:
    """Attention over flat rows: query [N, heads, D], key and value [N, kv heads, D]; returns [N, heads * D]."""
    heads, kv_heads, dim = query.shape[1], key.shape[1], query.shape[2]
    joined = torch.cat([query, key, value], dim=1).flatten(1)
    if torch.is_autocast_enabled("cpu"):
        joined = joined.to(torch.get_autocast_dtype("cpu"))
    with torch.autocast("cpu", enabled=False):
        return _attend(joined, heads, kv_heads, dim, where)


def _attend(joined: Tensor, heads: int, kv_heads: int, dim: int, where: Layout) -> Tensor:
    """`attend` in the number format of `joined` [N, (heads + 2 kv heads) * D]: all of it, the softmax too."""
    results = []
    for group in where.groups:
        rows = joined.index_select(0, group.index.flatten()).view(*group.index.shape, -1, dim).transpose(1, 2)
        q, k, v = torch.split(rows, [heads, kv_heads, kv_heads], dim=1)
        if kv_heads != heads:
            k, v = (part.repeat_interleave(heads // kv_heads, dim=1) for part in (k, v))
        scores = (q * dim**-0.5) @ k.mT
        if group.mask is not None:
            scores = scores.masked_fill(~group.mask, -torch.inf)
        # The plain way: on a CPU, in bfloat16, torch's fused attention takes three times as long.
        results.append((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, heads * dim))
    return torch.cat(results).index_select(0, where.back)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [N, heads, D] with cos and sin [N, D], halves paired."""
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat([-second, first], dim=-1) * sin[:, None]


class VisionAttention(nn.Module):
    """Full attention within a temporal slice."""

    def __init__(self, size: int, heads: int) -> None:
        """Args: size: width. heads: attention heads."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(size, 3 * size)
        self.proj = nn.Linear(size, size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, where: Layout) -> Tensor:
        """Rows x [P, size]; cos and sin [P, head dim]."""
        q, k, v = self.qkv(x).view(len(x), 3, self.heads, -1).unbind(1)
        out: Tensor = self.proj(attend(rotate(q, cos, sin), rotate(k, cos, sin), v, where))
        return out


class VisionMlp(nn.Module):
    """Two layers with quick GELU."""

    def __init__(self, size: int, ratio: int) -> None:
        """Args: size: width. ratio: hidden width over `size`."""
        super().__init__()
        self.fc1 = nn.Linear(size, ratio * size)
        self.fc2 = nn.Linear(ratio * size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Rows x [P, size]."""
        x = self.fc1(x)
        out: Tensor = self.fc2(x * torch.sigmoid(1.702 * x))
        return out


class VisionBlock(nn.Module):
    """One layer of the vision tower."""

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.vision_size, eps=1e-6)
        self.norm2 = nn.LayerNorm(shape.vision_size, eps=1e-6)
        self.attn = VisionAttention(shape.vision_size, shape.vision_heads)
        self.mlp = VisionMlp(shape.vision_size, shape.vision_mlp_ratio)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, where: Layout) -> Tensor:
        """Rows x [P, size]."""
        x = x + self.attn(self.norm1(x), cos, sin, where)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def cosines(size: int) -> Tensor:
    """First filters [size, 3, 2, 14, 14] of the patch embedding: cosines of low frequency, in brightness and two hues.

    That is where pictures have their energy; from noise, a small tower takes long to find it. High frequencies are
    weak in pictures and start with more gain, the mean brightness with less.
    """
    hues = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])
    hues = hues / hues.norm(dim=1, keepdim=True)
    waves = torch.cos(torch.pi / PATCH_PX * torch.arange(PATCH_PX)[:, None] * (torch.arange(PATCH_PX) + 0.5))
    waves = waves / waves.norm(dim=1, keepdim=True)
    orders = [(u, v, hue) for u in range(PATCH_PX) for v in range(PATCH_PX) for hue in range(3)]
    orders.sort(key=lambda order: ((order[0] + order[1] + 1) * (1.0 if order[2] == 0 else 1.5), order))
    filters = [
        (0.1 if u + v == 0 else 0.3 * (u + v) ** 0.7) * hues[hue][:, None, None] * waves[u][:, None] * waves[v]
        for u, v, hue in orders[:size]
    ]
    return torch.stack([torch.stack(filters)] * 2, dim=2) / 2  # both frames of a slice alike


class PatchEmbed(nn.Module):
    """The depth-2 3-D convolution over single patches, as matrix products on uint8 rows."""

    def __init__(self, size: int) -> None:
        """Args: size: width."""
        super().__init__()
        self.proj = nn.Conv3d(3, size, (2, PATCH_PX, PATCH_PX), (2, PATCH_PX, PATCH_PX), bias=False)
        mean, std = (torch.tensor(values).view(1, 3, 1) for values in (CLIP_MEAN, CLIP_STD))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, stills: Tensor, clips: Tensor) -> Tensor:
        """Stills uint8 [P, 588] (their one frame counts twice) and clips uint8 [P, 1176] to [P, size]."""
        weight = self.proj.weight
        return torch.cat(
            [
                F.linear(self._normalised(stills), weight.sum(dim=2).flatten(1)),
                F.linear(self._normalised(clips), weight.flatten(1)),
            ]
        )

    def _normalised(self, rows: Tensor) -> Tensor:
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return ((rows.float().view(len(rows), 3, rows.shape[1] // 3) / 255 - mean) / std).flatten(1)


class Merger(nn.Module):
    """Four neighbouring patches to one token of the language model."""

    def __init__(self, size: int, hidden_size: int) -> None:
        """Args: size: the vision tower's width. hidden_size: the language model's."""
        super().__init__()
        self.ln_q = nn.LayerNorm(size, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(4 * size, 4 * size), nn.GELU(), nn.Linear(4 * size, hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        """Rows x [P, size] to [P / 4, hidden size]."""
        merged: Tensor = self.mlp(self.ln_q(x).view(-1, 4 * x.shape[1]))
        return merged


class Vision(nn.Module):
    """The vision tower: patches to tokens."""

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.patch_embed = PatchEmbed(shape.vision_size)
        self.blocks = nn.ModuleList(VisionBlock(shape) for _ in range(shape.vision_depth))
        self.merger = Merger(shape.vision_size, shape.hidden_size)
        self.quarter = shape.vision_size // shape.vision_heads // 4
        self.theta = shape.vision_rope_theta

    def forward(self, batch: Batch) -> Tensor:
        """Tokens [P / 4, hidden size] of all media."""
        x: Tensor = self.patch_embed(torch.from_numpy(batch.still_rows), torch.from_numpy(batch.clip_rows))
        frequencies = self.theta ** (-torch.arange(self.quarter) / self.quarter)
        angles = (torch.from_numpy(batch.patch_positions).float()[..., None] * frequencies).permute(1, 0, 2).flatten(1)
        angles = torch.cat([angles, angles], dim=1)
        cos, sin = angles.cos(), angles.sin()
        where = layout(batch.slice_patches, None, _alike(batch.slice_patches))
        for block in self.blocks:
            x = block(x, cos, sin, where)
        merged: Tensor = self.merger(x)
        return merged


def _alike(lengths: np.ndarray) -> list[np.ndarray]:
    """Sequences grouped so that none is padded by much more than half."""
    groups: list[list[int]] = []
    for index in np.argsort(lengths, kind="stable"):
        if not groups or lengths[index] > 1.3 * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(int(index))
    return [np.array(group) for group in groups]


class Attention(nn.Module):
    """Causal attention with grouped keys and values."""

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.dim = shape.hidden_size // shape.num_heads
        self.q_proj = nn.Linear(shape.hidden_size, shape.num_heads * self.dim)
        self.k_proj = nn.Linear(shape.hidden_size, shape.num_kv_heads * self.dim)
        self.v_proj = nn.Linear(shape.hidden_size, shape.num_kv_heads * self.dim)
        self.o_proj = nn.Linear(shape.num_heads * self.dim, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, where: Layout) -> Tensor:
        """Rows x [T, hidden size]; cos and sin [T, head dim]."""
        q, k, v = (proj(x).view(len(x), -1, self.dim) for proj in (self.q_proj, self.k_proj, self.v_proj))
        out: Tensor = self.o_proj(attend(rotate(q, cos, sin), rotate(k, cos, sin), v, where))
        return out


class Mlp(nn.Module):
    """Gated linear unit with SiLU."""

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rows x [T, hidden size]."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    """One layer of the language model."""

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.mlp = Mlp(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, where: Layout) -> Tensor:
        """Rows x [T, hidden size]."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, where)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Language(nn.Module):
    """The language model without its head."""

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.num_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.num_pairs = shape.hidden_size // shape.num_heads // 2
        self.theta, self.section = shape.rope_theta, list(shape.mrope_section)

    def angles(self, positions: Tensor) -> Tensor:
        """M-RoPE angles [T, head dim] of positions [3, T]: each section of the frequencies follows its own axis."""
        frequencies = self.theta ** (-torch.arange(self.num_pairs) / self.num_pairs)
        angles = positions.float()[..., None] * frequencies
        chosen = torch.cat([part[axis] for axis, part in enumerate(torch.split(angles, self.section, dim=-1))], dim=-1)
        return torch.cat([chosen, chosen], dim=-1)

    def forward(self, x: Tensor, positions: Tensor, where: Layout) -> tuple[Tensor, list[Tensor]]:
        """Rows [T, hidden size] at positions [3, T] to the last layer's result, normed, and what each layer made."""
        angles = self.angles(positions)
        cos, sin = angles.cos(), angles.sin()
        made = [x]
        for layer in self.layers:
            made.append(layer(made[-1], cos, sin, where))
        return self.norm(made[-1]), made


class Model(nn.Module):
    """The whole model."""

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.visual = Vision(shape)
        self.model = Language(shape)
        self.lm_head = nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """Matrices at 1/sqrt(inputs); what writes into a residual stream starts at zero, so depth costs nothing."""
        for name, weight in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight", "fc2.weight")):
                nn.init.zeros_(weight)
            elif name.endswith("patch_embed.proj.weight"):
                weight.data.copy_(cosines(len(weight)))
            elif name.endswith("embed_tokens.weight"):
                nn.init.normal_(weight, std=0.5)
            elif weight.ndim > 1:
                nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [A, vocabulary] of the answer tokens."""
        return self.answer(batch, self.visual(batch) if len(batch.placeholders) else None)[0]

    def answer(self, batch: Batch, seen: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Answer the questions, given what the vision tower made of the media.

        Returns:
            Logits [A, vocabulary] of the answer tokens, and what entered the first layer and left each of them
            [T, hidden size].
        """
        x = self.model.embed_tokens(torch.from_numpy(batch.token_ids))
        if seen is not None:
            x = x.index_copy(0, torch.from_numpy(batch.placeholders), seen)
        lengths = batch.sample_tokens
        order = np.array_split(np.arange(len(lengths)), max(1, len(lengths) // GROUP_SAMPLES))
        x, made = self.model(x, torch.from_numpy(batch.positions), layout(lengths, batch.branches, order))
        logits: Tensor = self.lm_head(x.index_select(0, torch.from_numpy(batch.answer_index)))
        return logits, made
