"""Name and shape of every tensor of a Qwen2-VL or a Qwen2.5-VL, by the releases' names, as if nothing were quantized.

Source: the Qwen2-VL and Qwen2.5-VL releases; transformers for the sizes that a `config.json` may leave out.
"""

from collections.abc import Iterator

from model_executor.families.family import Config, NamedShape

# What transformers leaves out of a config.json because it is the class's own default.
_TEXT_DEFAULTS = {
    "hidden_size": 8192,
    "intermediate_size": 29_568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 152_064,
}


def qwen2_vl_tensors(config: Config) -> Iterator[NamedShape]:
    """Of a Qwen2-VL."""
    text = _text(config)
    vision = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, **(config.get("vision_config") or {})}
    width, inner = vision["embed_dim"], int(vision["embed_dim"] * vision["mlp_ratio"])
    for number in range(vision["depth"]):
        block = f"visual.blocks.{number}"
        yield from norm(f"{block}.norm1", width)
        yield from norm(f"{block}.norm2", width)
        yield from _attention(block, width)
        yield from linear(f"{block}.mlp.fc1", inner, width)
        yield from linear(f"{block}.mlp.fc2", width, inner)
    yield from norm("visual.merger.ln_q", width)
    yield from _ends(vision, width, text["hidden_size"])
    yield from _language_model(text, is_tied=is_tied(config))


def qwen2_5_vl_tensors(config: Config) -> Iterator[NamedShape]:
    """Of a Qwen2.5-VL."""
    text = _text(config)
    defaults = {"depth": 32, "hidden_size": 3584, "intermediate_size": 3420, "out_hidden_size": text["hidden_size"]}
    vision = {**defaults, **(config.get("vision_config") or {})}
    width, inner = vision["hidden_size"], vision["intermediate_size"]
    for number in range(vision["depth"]):
        block = f"visual.blocks.{number}"
        yield f"{block}.norm1.weight", (width,)
        yield f"{block}.norm2.weight", (width,)
        yield from _attention(block, width)
        yield from linear(f"{block}.mlp.gate_proj", inner, width)
        yield from linear(f"{block}.mlp.up_proj", inner, width)
        yield from linear(f"{block}.mlp.down_proj", width, inner)
    yield "visual.merger.ln_q.weight", (width,)
    yield from _ends(vision, width, vision["out_hidden_size"])
    yield from _language_model(text, is_tied=is_tied(config))


def is_tied(config: Config) -> bool:
    """Whether the output head is the embedding, so that no file needs to have it."""
    return bool(config.get("tie_word_embeddings", (config.get("text_config") or {}).get("tie_word_embeddings", False)))


def linear(name: str, num_out: int, num_in: int) -> Iterator[NamedShape]:
    """A linear layer with a bias."""
    yield f"{name}.weight", (num_out, num_in)
    yield f"{name}.bias", (num_out,)


def norm(name: str, width: int) -> Iterator[NamedShape]:
    """A LayerNorm."""
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _text(config: Config) -> Config:
    return _TEXT_DEFAULTS | dict(config.get("text_config") or config)


def _language_model(text: Config, *, is_tied: bool) -> Iterator[NamedShape]:
    hidden, inner, num_rows = text["hidden_size"], text["intermediate_size"], text["vocab_size"]
    kv = hidden // text["num_attention_heads"] * text["num_key_value_heads"]
    yield "model.embed_tokens.weight", (num_rows, hidden)
    for number in range(text["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
        yield from linear(f"{layer}.self_attn.q_proj", hidden, hidden)
        yield from linear(f"{layer}.self_attn.k_proj", kv, hidden)
        yield from linear(f"{layer}.self_attn.v_proj", kv, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, hidden)
        yield f"{layer}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.up_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    if not is_tied:
        yield "lm_head.weight", (num_rows, hidden)


def _attention(block: str, width: int) -> Iterator[NamedShape]:
    yield from linear(f"{block}.attn.qkv", 3 * width, width)
    yield from linear(f"{block}.attn.proj", width, width)


def _ends(vision: Config, width: int, hidden: int) -> Iterator[NamedShape]:
    """Patch embedding and merger, equal in both."""
    patch, channels = vision.get("patch_size", 14), vision.get("in_chans", vision.get("in_channels", 3))
    merged = width * vision.get("spatial_merge_size", 2) ** 2
    yield "visual.patch_embed.proj.weight", (width, channels, vision.get("temporal_patch_size", 2), patch, patch)
    yield from linear("visual.merger.mlp.0", merged, merged)
    yield from linear("visual.merger.mlp.2", hidden, merged)
