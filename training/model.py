"""Qwen2-VL for training: plain PyTorch over batches of fixed shape, names of weights as in the released checkpoints.

`tests/training/test_export.py` holds it equal to transformers' model.

Source: Qwen2-VL report (arXiv 2409.12191) section 2.1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_executor.checkpoint.processor_files import CLIP_MEAN, CLIP_STD
from model_executor.processor.geometry import PATCH_PX
from training.batch import Batch
from training.recipe import Shape

_NORM_EPS = 1e-6
"""Of the vision tower's norms; fixed by the architecture."""


def compute_dtype(x: Tensor) -> torch.dtype:
    """What matrix products with x are made in."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def attention_bias(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores [B, 1, L, L]: 0 where bool [B, L, L] is true, minus infinity elsewhere."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, -torch.inf)[:, None]


def visible_tokens(batch: Batch) -> Tensor:
    """Bool [B, L, L]: a token sees what stands before it in its sample's common beginning and in its own branch."""
    mine, theirs = batch.branches[:, :, None], batch.branches[:, None, :]
    together = batch.samples[:, :, None] == batch.samples[:, None, :]
    length = batch.branches.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=batch.branches.device).tril()
    return together & before & ((theirs == 0) | (theirs == mine))


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attention [B, L, heads * D] of query [B, L, heads, D] over key and value [B, L, kv heads, D]."""
    groups = query.shape[2] // key.shape[2]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=2), value.repeat_interleave(groups, dim=2)
    query, key, value = (x.transpose(1, 2).to(bias.dtype) for x in (query, key, value))
    bias = bias.expand(-1, query.shape[1], -1, -1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2).flatten(2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [..., heads, D] with cos and sin [..., 1, D], halves paired."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class VisionAttention(nn.Module):
    """Full attention within a temporal slice."""

    def __init__(self, size: int, heads: int) -> None:
        """Args: size: width. heads: attention heads."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(size, 3 * size)
        self.proj = nn.Linear(size, size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor) -> Tensor:
        """Rows x [W, V, size]; cos and sin [W, V, 1, head dim]."""
        parts = self.qkv(x).unflatten(2, (3 * self.heads, -1))
        turned, value = rotate(parts[:, :, : 2 * self.heads], cos, sin), parts[:, :, 2 * self.heads :]
        query, key = torch.split(turned, self.heads, dim=2)
        out: Tensor = self.proj(attend(query, key, value, bias))
        return out


class VisionMlp(nn.Module):
    """Two layers with quick GELU."""

    def __init__(self, size: int, ratio: int) -> None:
        """Args: size: width. ratio: hidden width over `size`."""
        super().__init__()
        self.fc1 = nn.Linear(size, ratio * size)
        self.fc2 = nn.Linear(ratio * size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Rows x [..., size]."""
        x = self.fc1(x)
        out: Tensor = self.fc2(x * torch.sigmoid(1.702 * x))
        return out


class VisionBlock(nn.Module):
    """One layer of the vision tower."""

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.vision_size, eps=_NORM_EPS)
        self.norm2 = nn.LayerNorm(shape.vision_size, eps=_NORM_EPS)
        self.attn = VisionAttention(shape.vision_size, shape.vision_heads)
        self.mlp = VisionMlp(shape.vision_size, shape.vision_mlp_ratio)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor) -> Tensor:
        """Rows x [W, V, size]."""
        x = x + self.attn(self.norm1(x), cos, sin, bias)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def cosines(size: int) -> Tensor:
    """Filters [size, 3, 2, 14, 14] to start the patch embedding: cosines of low frequency, in brightness and two hues.

    That is where images have their energy; from noise, a small tower takes long to find it. High frequencies are
    weak in images and start with more gain, the mean brightness with less.
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
    """The depth-2 3-D convolution over single patches, as a matrix product on uint8 rows."""

    def __init__(self, size: int) -> None:
        """Args: size: width."""
        super().__init__()
        self.proj = nn.Conv3d(3, size, (2, PATCH_PX, PATCH_PX), (2, PATCH_PX, PATCH_PX), bias=False)
        mean, std = (torch.tensor(values).repeat_interleave(2 * PATCH_PX**2) for values in (CLIP_MEAN, CLIP_STD))
        self.register_buffer("mean", 255 * mean, persistent=False)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """uint8 rows [P, 1176] to [P, size]."""
        pixels = (rows.float() - self.get_buffer("mean")) * self.get_buffer("scale")
        return F.linear(pixels, self.proj.weight.flatten(1))


class Merger(nn.Module):
    """Four neighboring patches to one token of the language model."""

    def __init__(self, size: int, hidden_size: int) -> None:
        """Args: size: the vision tower's width. hidden_size: the language model's."""
        super().__init__()
        self.ln_q = nn.LayerNorm(size, eps=_NORM_EPS)
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
        quarter = shape.vision_size // shape.vision_heads // 4
        frequencies = shape.vision_rope_theta ** (-torch.arange(quarter) / quarter)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Tokens [M, hidden size] of all media."""
        windows = batch.patch_slices.shape
        x: Tensor = self.patch_embed(batch.rows).unflatten(0, windows)
        angles = (batch.patch_positions.float()[..., None] * self.get_buffer("frequencies")).permute(1, 0, 2).flatten(1)
        angles = torch.cat([angles, angles], dim=1).view(*windows, 1, -1)
        dtype = compute_dtype(x)
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        bias = attention_bias(batch.patch_slices[:, :, None] == batch.patch_slices[:, None, :], dtype)
        for block in self.blocks:
            x = block(x, cos, sin, bias)
        merged: Tensor = self.merger(x.flatten(0, 1))
        return merged


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

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor) -> Tensor:
        """Rows x [B, L, hidden size]; cos and sin [B, L, 1, head dim]."""
        q, k, v = (proj(x).unflatten(2, (-1, self.dim)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        out: Tensor = self.o_proj(attend(rotate(q, cos, sin), rotate(k, cos, sin), v, bias))
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
        """Rows x [..., hidden size]."""
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

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor) -> Tensor:
        """Rows x [B, L, hidden size]."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, bias)
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
        pairs = shape.hidden_size // shape.num_heads // 2
        self.register_buffer("frequencies", shape.rope_theta ** (-torch.arange(pairs) / pairs), persistent=False)
        self.section = list(shape.mrope_section)

    def angles(self, positions: Tensor) -> Tensor:
        """M-RoPE angles [..., head dim] of positions [3, ...]: each section of the frequencies follows its own axis."""
        angles = positions.float()[..., None] * self.get_buffer("frequencies")
        chosen = torch.cat([part[axis] for axis, part in enumerate(torch.split(angles, self.section, dim=-1))], dim=-1)
        return torch.cat([chosen, chosen], dim=-1)

    def forward(self, x: Tensor, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Rows [B, L, hidden size] to the last layer's result, normed, and what each layer made."""
        angles = self.angles(batch.positions)[:, :, None]
        dtype = compute_dtype(x)
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        bias = attention_bias(visible_tokens(batch), dtype)
        made = [x]
        for layer in self.layers:
            made.append(layer(made[-1], cos, sin, bias))
        return self.norm(made[-1]), made


class Model(nn.Module):
    """The whole model."""

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.visual = Vision(shape)
        self.model = Language(shape)
        self.lm_head = nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        self._initialize()

    def _initialize(self) -> None:
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
        return self.answer(batch, self.visual(batch))[0]

    def answer(self, batch: Batch, seen: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Answer the questions, given what the vision tower made of the media.

        Returns:
            Logits [A, vocabulary] of the answer tokens, and what entered the first layer and left each of them
            [B, L, hidden size].
        """
        text = self.model.embed_tokens(batch.token_ids)
        shown = seen.index_select(0, batch.sources).view_as(text)
        x = torch.where(batch.media[..., None] > 0, shown.to(text.dtype), text)
        x, made = self.model(x, batch)
        logits: Tensor = self.lm_head(x.flatten(0, 1).index_select(0, batch.answer_index))
        return logits, made
