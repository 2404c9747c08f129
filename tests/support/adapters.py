"""Random LoRA adapters in PEFT's format, and what they do to a model, written out by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

ALL_MODULES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def write_adapter(
    folder: Path,
    model: Path,
    *,
    rank: int = 4,
    alpha: float = 8,
    modules: Sequence[str] = ALL_MODULES,
    prefix: str = "model.language_model.",
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write an adapter that changes every layer of the checkpoint in `model`.

    Args:
        folder: where to; made.
        model: the checkpoint folder.
        rank: of every module.
        alpha: the product of the two matrices is scaled by alpha / rank.
        modules: what it changes.
        prefix: where the layers are, as the trainer's transformers named them.
        seed: of the numbers.
        config: further or other entries of `adapter_config.json`.
    """
    generator = torch.Generator().manual_seed(seed)
    text = json.loads((model / "config.json").read_text())
    text = text.get("text_config", text)
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    kv = hidden // text["num_attention_heads"] * text["num_key_value_heads"]
    sizes = {"k_proj": (kv, hidden), "v_proj": (kv, hidden), "down_proj": (hidden, inner)}
    sizes |= {"gate_proj": (inner, hidden), "up_proj": (inner, hidden)}
    tensors: dict[str, torch.Tensor] = {}
    for layer in range(text["num_hidden_layers"]):
        for module in modules:
            num_out, num_in = sizes.get(module.partition(".")[2], (hidden, hidden))
            name = f"base_model.model.{prefix}layers.{layer}.{module}"
            # Large enough to change answers, small enough not to drown the model.
            a = torch.randn(rank, num_in, generator=generator) / num_in**0.5
            b = torch.randn(num_out, rank, generator=generator) * 0.2 / rank**0.5
            tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    names = [module.partition(".")[2] for module in modules]
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": names, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


@torch.no_grad()
def merge(adapter: Path, layers: torch.nn.ModuleList, scale: float) -> None:
    """Add an adapter to the weights of a model: W + scale * B A, in float32."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    for name, a in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        b = tensors[name.replace("lora_A", "lora_B")]
        module = name.partition(".layers.")[2].removesuffix(".lora_A.weight")
        layers.get_submodule(module).get_parameter("weight").add_(scale * (b @ a))
