"""A small random Qwen-VL checkpoint: true image size, patches and queries, true vocabulary, weights as a pickle.

The weights are scaled so that every token and every image changes what follows.

Source: the release's `config.json`, `generation_config.json` and weight names.
"""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model_executor.families.qwen_vl_tensors import NUM_QUERIES
from training.qwen_tokenizer import NUM_ORDINARY_TOKENS, vocabulary_path


@dataclass(frozen=True, slots=True)
class QwenVLShape:
    """Sizes of the model; heads of the language model and the resampler are 128 wide."""

    num_layers: int = 3
    hidden: int = 256
    intermediate: int = 512
    vision_layers: int = 3
    vision_width: int = 208
    vision_heads: int = 2
    mlp_ratio: float = 4.9231
    trained_tokens: int = 2048
    max_model_len: int = 8192
    vocab_size: int = 151_936
    is_chat: bool = True
    dtype: torch.dtype = torch.bfloat16
    """Number format on disk."""


def write_random_qwen_vl(folder: Path, shape: QwenVLShape | None = None, *, seed: int = 0) -> None:
    """Write a complete checkpoint folder.

    Args:
        folder: created if missing.
        shape: sizes; the defaults make about 85 million parameters, 170 MB.
        seed: of the weights.
    """
    shape = shape or QwenVLShape()
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.to(shape.dtype) for name, value in _weights(shape, torch.Generator().manual_seed(seed))}
    torch.save(weights, folder / "pytorch_model.bin")
    _write_json(folder / "config.json", _config(shape))
    chat_format = "chatml" if shape.is_chat else "raw"
    _write_json(folder / "generation_config.json", {"chat_format": chat_format, "eos_token_id": 151_643})
    shutil.copyfile(vocabulary_path(), folder / "qwen.tiktoken")


def _weights(shape: QwenVLShape, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    def normal(*size: int, std: float) -> torch.Tensor:
        return torch.randn(*size, generator=generator) * std

    def linear(name: str, out: int, into: int, *, gain: float = 1.5, bias: bool = True) -> Iterator[Any]:
        yield f"{name}.weight", normal(out, into, std=gain / math.sqrt(into))
        if bias:
            yield f"{name}.bias", normal(out, std=0.1)

    def norm(name: str, width: int, *, bias: bool = True) -> Iterator[Any]:
        yield f"{name}.weight", 1 + normal(width, std=0.2)
        if bias:
            yield f"{name}.bias", normal(width, std=0.1)

    def rows(name: str, std: float) -> Iterator[Any]:
        values = normal(shape.vocab_size, shape.hidden, std=std)
        values[NUM_ORDINARY_TOKENS:] *= 0.05  # never the most likely
        yield f"{name}.weight", values

    hidden, width, visual = shape.hidden, shape.vision_width, "transformer.visual"
    yield from rows("transformer.wte", 1.0)
    for i in range(shape.num_layers):
        layer = f"transformer.h.{i}"
        yield from norm(f"{layer}.ln_1", hidden, bias=False)
        yield from linear(f"{layer}.attn.c_attn", 3 * hidden, hidden)
        yield from linear(f"{layer}.attn.c_proj", hidden, hidden, bias=False)
        yield from norm(f"{layer}.ln_2", hidden, bias=False)
        yield from linear(f"{layer}.mlp.w1", shape.intermediate, hidden, bias=False)
        yield from linear(f"{layer}.mlp.w2", shape.intermediate, hidden, bias=False)
        yield from linear(f"{layer}.mlp.c_proj", hidden, shape.intermediate, bias=False)
    yield from norm("transformer.ln_f", hidden, bias=False)
    yield from rows("lm_head", 1.5 / math.sqrt(hidden))
    yield f"{visual}.conv1.weight", normal(width, 3, 14, 14, std=1.5 / math.sqrt(588))
    yield f"{visual}.positional_embedding", normal(NUM_QUERIES, width, std=0.5)
    yield from norm(f"{visual}.ln_pre", width)
    inner = int(width * shape.mlp_ratio)
    for i in range(shape.vision_layers):
        block = f"{visual}.transformer.resblocks.{i}"
        yield from norm(f"{block}.ln_1", width)
        yield from linear(f"{block}.attn.in_proj", 3 * width, width)
        yield from linear(f"{block}.attn.out_proj", width, width)
        yield from norm(f"{block}.ln_2", width)
        yield from linear(f"{block}.mlp.c_fc", inner, width)
        yield from linear(f"{block}.mlp.c_proj", width, inner)
    pool = f"{visual}.attn_pool"
    yield from linear(f"{pool}.kv_proj", hidden, width, bias=False)
    yield from norm(f"{pool}.ln_kv", hidden)
    yield from norm(f"{pool}.ln_q", hidden)
    yield f"{pool}.query", normal(NUM_QUERIES, hidden, std=0.5)
    yield f"{pool}.pos_embed", normal(NUM_QUERIES, hidden, std=0.5)
    yield f"{pool}.attn.in_proj_weight", normal(3 * hidden, hidden, std=1.5 / math.sqrt(hidden))
    yield f"{pool}.attn.in_proj_bias", normal(3 * hidden, std=0.1)
    yield from linear(f"{pool}.attn.out_proj", hidden, hidden)
    yield from norm(f"{visual}.ln_post", hidden)
    yield f"{visual}.proj", normal(hidden, hidden, std=1.5 / math.sqrt(hidden))


def _config(shape: QwenVLShape) -> dict[str, Any]:
    return {
        "architectures": ["QWenLMHeadModel"],
        "model_type": "qwen",
        "auto_map": {"AutoConfig": "configuration_qwen.QWenConfig", "AutoModelForCausalLM": "modeling_qwen.QWenModel"},
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.hidden // 128,
        "kv_channels": 128,
        "intermediate_size": 2 * shape.intermediate,
        "layer_norm_epsilon": 1e-6,
        "max_position_embeddings": shape.max_model_len,
        "seq_length": shape.trained_tokens,
        "rotary_emb_base": 10_000,
        "rotary_pct": 1.0,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "no_bias": True,
        "scale_attn_weights": True,
        "tie_word_embeddings": False,
        "vocab_size": shape.vocab_size,
        "torch_dtype": str(shape.dtype).removeprefix("torch."),
        "visual": {
            "heads": shape.vision_heads,
            "image_size": 448,
            "image_start_id": 151_857,
            "layers": shape.vision_layers,
            "mlp_ratio": shape.mlp_ratio,
            "output_dim": shape.hidden,
            "patch_size": 14,
            "width": shape.vision_width,
        },
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
