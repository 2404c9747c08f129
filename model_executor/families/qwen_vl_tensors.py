"""Name and shape of every tensor of a Qwen-VL, by the release's names, as if nothing were quantized.

Source: the Qwen-VL release (index of tensors of Qwen-VL-Chat-Int4, modeling_qwen.py, visual.py).
"""

from collections.abc import Iterator

from model_executor.families.family import Config, NamedShape
from model_executor.families.qwen2_tensors import linear, norm

NUM_QUERIES = 256
"""Tokens of an image; the vision tower's table of positions, trained at 224 pixels, has as many rows."""
_CHANNELS = 3


def qwen_vl_tensors(config: Config) -> Iterator[NamedShape]:
    """Of a Qwen-VL."""
    hidden, inner, num_rows = config["hidden_size"], config["intermediate_size"] // 2, config["vocab_size"]
    yield "transformer.wte.weight", (num_rows, hidden)
    for number in range(config["num_hidden_layers"]):
        layer = f"transformer.h.{number}"
        yield f"{layer}.ln_1.weight", (hidden,)
        yield f"{layer}.ln_2.weight", (hidden,)
        yield from linear(f"{layer}.attn.c_attn", 3 * hidden, hidden)
        yield f"{layer}.attn.c_proj.weight", (hidden, hidden)
        yield f"{layer}.mlp.w1.weight", (inner, hidden)
        yield f"{layer}.mlp.w2.weight", (inner, hidden)
        yield f"{layer}.mlp.c_proj.weight", (hidden, inner)
    yield "transformer.ln_f.weight", (hidden,)
    yield "lm_head.weight", (num_rows, hidden)
    yield from _tower(config["visual"])


def _tower(vision: Config) -> Iterator[NamedShape]:
    visual, width, out, patch = "transformer.visual", vision["width"], vision["output_dim"], vision["patch_size"]
    inner = int(width * vision["mlp_ratio"])
    yield f"{visual}.conv1.weight", (width, _CHANNELS, patch, patch)
    yield f"{visual}.positional_embedding", (NUM_QUERIES, width)
    yield from norm(f"{visual}.ln_pre", width)
    for number in range(vision["layers"]):
        block = f"{visual}.transformer.resblocks.{number}"
        yield from norm(f"{block}.ln_1", width)
        yield from linear(f"{block}.attn.in_proj", 3 * width, width)
        yield from linear(f"{block}.attn.out_proj", width, width)
        yield from norm(f"{block}.ln_2", width)
        yield from linear(f"{block}.mlp.c_fc", inner, width)
        yield from linear(f"{block}.mlp.c_proj", width, inner)
    pool = f"{visual}.attn_pool"
    yield f"{pool}.kv_proj.weight", (out, width)
    yield from norm(f"{pool}.ln_kv", out)
    yield from norm(f"{pool}.ln_q", out)
    yield f"{pool}.query", (NUM_QUERIES, out)
    yield f"{pool}.pos_embed", (NUM_QUERIES, out)
    yield f"{pool}.attn.in_proj_weight", (3 * out, out)
    yield f"{pool}.attn.in_proj_bias", (3 * out,)
    yield from linear(f"{pool}.attn.out_proj", out, out)
    yield from norm(f"{visual}.ln_post", out)
    yield f"{visual}.proj", (out, out)
