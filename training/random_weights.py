"""Random weights that are alive: sizes of a language model and of the vision towers, and parameters drawn for them.

The weights are scaled so that every token and every image changes what follows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from training.qwen_tokenizer import NUM_ORDINARY_TOKENS

_CONTROL_SCALE = 0.05


@dataclass(frozen=True, slots=True)
class TextShape:
    """Sizes of the language model; the head dimension is `hidden / num_heads`."""

    num_layers: int = 4
    hidden: int = 256
    intermediate: int = 768
    num_heads: int = 4
    num_kv_heads: int = 2
    mrope_section: tuple[int, int, int] = (8, 12, 12)
    """Rotary pairs for time, height and width; together half the head dimension."""
    vocab_size: int = 151_936
    max_model_len: int = 32_768
    rope_theta: float = 1_000_000.0


@dataclass(frozen=True, slots=True)
class VisionShape:
    """Sizes of the vision tower; the head dimension is `width / num_heads`, a multiple of 4."""

    depth: int = 4
    width: int = 160
    num_heads: int = 2
    mlp_ratio: int = 4


@dataclass(frozen=True, slots=True)
class WindowVisionShape:
    """Sizes of Qwen2.5-VL's vision tower; the head dimension is `width / num_heads`, a multiple of 4."""

    depth: int = 4
    width: int = 160
    num_heads: int = 2
    intermediate: int = 428
    """As in the released models, a multiple of 4 and not of 8."""
    window_px: int = 112
    whole_slice_blocks: tuple[int, ...] = (1, 3)
    """Blocks without windows."""
    time_ids_per_s: int = 2


Named = Iterator[tuple[str, torch.Tensor]]
"""Parameters under the names transformers 5 gives them."""


class Source:
    """Draws named parameters from one seeded generator, in a fixed order.

    Args:
        seed: of the generator.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *size: int, std: float) -> torch.Tensor:
        """Normally distributed values around 0."""
        return torch.randn(*size, generator=self._generator) * std

    def linear(self, name: str, out: int, into: int, *, gain: float = 1.0, bias: bool = True) -> Named:
        """A linear layer that keeps the variance of what it gets, times the square of `gain`."""
        yield f"{name}.weight", self.normal(out, into, std=gain / math.sqrt(into))
        if bias:
            yield f"{name}.bias", self.normal(out, std=0.1 * gain)

    def norm(self, name: str, width: int, *, gain: float = 1.0, bias: bool = False) -> Named:
        """A norm's scale around `gain`."""
        yield f"{name}.weight", gain + self.normal(width, std=0.1)
        if bias:
            yield f"{name}.bias", self.normal(width, std=0.1)

    def token_rows(self, name: str, num_rows: int, width: int, *, std: float = 0.1) -> Named:
        """One row per id; those of control and unused ids are small, so that they are never the most likely."""
        rows = self.normal(num_rows, width, std=std)
        rows[NUM_ORDINARY_TOKENS:] *= _CONTROL_SCALE
        yield f"{name}.weight", rows


def vision_weights(source: Source, shape: VisionShape, hidden: int) -> Named:
    """Of Qwen2-VL's tower."""
    tower, width, inner = "model.visual", shape.width, shape.mlp_ratio * shape.width
    yield from _patch_embedding(source, tower, width)
    for i in range(shape.depth):
        block = f"{tower}.blocks.{i}"
        yield from source.norm(f"{block}.norm1", width, bias=True)
        yield from source.linear(f"{block}.attn.qkv", 3 * width, width, gain=1.5)
        yield from source.linear(f"{block}.attn.proj", width, width)
        yield from source.norm(f"{block}.norm2", width, bias=True)
        yield from source.linear(f"{block}.mlp.fc1", inner, width)
        yield from source.linear(f"{block}.mlp.fc2", width, inner)
    yield from source.norm(f"{tower}.merger.ln_q", width, bias=True)
    yield from _merger(source, tower, width, hidden)


def window_vision_weights(source: Source, shape: WindowVisionShape, hidden: int) -> Named:
    """Of Qwen2.5-VL's tower."""
    tower, width = "model.visual", shape.width
    yield from _patch_embedding(source, tower, width)
    for i in range(shape.depth):
        block = f"{tower}.blocks.{i}"
        yield from source.norm(f"{block}.norm1", width)
        yield from source.linear(f"{block}.attn.qkv", 3 * width, width, gain=1.5)
        yield from source.linear(f"{block}.attn.proj", width, width)
        yield from source.norm(f"{block}.norm2", width)
        yield from source.linear(f"{block}.mlp.gate_proj", shape.intermediate, width)
        yield from source.linear(f"{block}.mlp.up_proj", shape.intermediate, width)
        yield from source.linear(f"{block}.mlp.down_proj", width, shape.intermediate, gain=2)
    yield from source.norm(f"{tower}.merger.ln_q", width)
    yield from _merger(source, tower, width, hidden)


def _patch_embedding(source: Source, tower: str, width: int) -> Named:
    yield f"{tower}.patch_embed.proj.weight", source.normal(width, 3, 2, 14, 14, std=1 / math.sqrt(3 * 2 * 14 * 14))


def _merger(source: Source, tower: str, width: int, hidden: int) -> Named:
    yield from source.linear(f"{tower}.merger.mlp.0", 4 * width, 4 * width)
    yield from source.linear(f"{tower}.merger.mlp.2", hidden, 4 * width)


def text_weights(source: Source, shape: TextShape) -> Named:
    """Weights whose greedy output is alive.

    Two scales decide that. Queries and keys are large, so that attention picks instead of averaging; and what layers
    add is large against the embedding, so that a tied head does not just repeat its input.
    """
    model, hidden = "model.language_model", shape.hidden
    kv = hidden // shape.num_heads * shape.num_kv_heads
    yield from source.token_rows(f"{model}.embed_tokens", shape.vocab_size, hidden)
    for i in range(shape.num_layers):
        layer = f"{model}.layers.{i}"
        yield from source.norm(f"{layer}.input_layernorm", hidden)
        yield from source.linear(f"{layer}.self_attn.q_proj", hidden, hidden, gain=2)
        yield from source.linear(f"{layer}.self_attn.k_proj", kv, hidden, gain=2)
        yield from source.linear(f"{layer}.self_attn.v_proj", kv, hidden)
        yield from source.linear(f"{layer}.self_attn.o_proj", hidden, hidden, gain=3, bias=False)
        yield from source.norm(f"{layer}.post_attention_layernorm", hidden)
        yield from source.linear(f"{layer}.mlp.gate_proj", shape.intermediate, hidden, bias=False)
        yield from source.linear(f"{layer}.mlp.up_proj", shape.intermediate, hidden, bias=False)
        yield from source.linear(f"{layer}.mlp.down_proj", hidden, shape.intermediate, gain=3, bias=False)
    yield from source.norm(f"{model}.norm", hidden, gain=3)
