"""Quantised checkpoints in the layouts of the released ones, made from a random checkpoint, and the same model plain.

Linear layers are quantised, those of the vision tower by W8A8 only, as the released ones are; embedding, head, norms
and biases stay as they are. The 4-bit scales are powers of two, so that the numbers they stand for are exact in every
format and the plain copy is the same model, not a similar one.

Source: `config.json` and tensor names of Qwen2-VL-2B-Instruct-AWQ and -GPTQ-Int4 and of llm-compressor's W8A8 recipe.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import nn

Scheme = Literal["w8a8", "awq", "gptq"]
GROUP_SIZE = 128
"""Inputs that share a scale in the 4-bit layouts."""
BITS = 4
_PACK = 32 // BITS
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighboring outputs lies in which four bits of an AWQ word, lowest bits first."""
_LANGUAGE = re.compile(r"model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)\.weight")
_TOWER = re.compile(r"visual\.(blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])|merger\.mlp\.[02])\.weight")
_Tensors = Mapping[str, torch.Tensor]


def write_quantised(source: Path, quantised: Path, plain: Path, scheme: Scheme) -> None:
    """Write two checkpoints of one model.

    Args:
        source: checkpoint with the names of the release, in one file; inputs of its layers in multiples of GROUP_SIZE.
        quantised: folder to make, in the layout of `scheme`.
        plain: folder to make, with the numbers that the quantised weights stand for, float32.
        scheme: w8a8: int8 weights with a scale per output, activations quantised per token as they come (compressed-
            tensors). awq, gptq: 4-bit weights with a scale per GROUP_SIZE inputs.
    """
    packed: dict[str, torch.Tensor] = {}
    exact: dict[str, torch.Tensor] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if _LANGUAGE.fullmatch(name) or (scheme == "w8a8" and _TOWER.fullmatch(name)):
            parts, exact[name] = SCHEMES[scheme](weight.float())
            packed |= {f"{name.removesuffix('.weight')}.{part}": value for part, value in parts.items()}
        else:
            packed[name], exact[name] = weight, weight.float()
    for folder, weights, extra in (
        (quantised, packed, {"quantization_config": CONFIGS[scheme]}),
        (plain, exact, {"torch_dtype": "float32"}),
    ):
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.safetensors"))
        save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
        config = json.loads((source / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | extra))


CONFIGS: Mapping[Scheme, dict[str, Any]] = {
    "w8a8": {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {"type": "int", "num_bits": 8, "strategy": "channel", "symmetric": True, "dynamic": False},
                "input_activations": {
                    "type": "int",
                    "num_bits": 8,
                    "strategy": "token",
                    "symmetric": True,
                    "dynamic": True,
                },
            }
        },
    },
    "awq": {
        "quant_method": "awq",
        "version": "gemm",
        "bits": BITS,
        "group_size": GROUP_SIZE,
        "zero_point": True,
        "modules_to_not_convert": ["visual"],
    },
    "gptq": {
        "quant_method": "gptq",
        "bits": BITS,
        "group_size": GROUP_SIZE,
        "sym": True,
        "desc_act": False,
        "damp_percent": 0.1,
        "true_sequential": True,
    },
}
"""`quantization_config` of `config.json`."""


def quantise_activations(model: nn.Module) -> None:
    """Round what every linear layer takes in to 255 steps per token, as the W8A8 layout asks for."""

    def rounded(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        scale = inputs[0].abs().amax(-1, keepdim=True) / 127
        return ((inputs[0] / scale).round() * scale,)

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(rounded)


def _w8a8(weight: torch.Tensor) -> tuple[_Tensors, torch.Tensor]:
    """Int8 [out, in] with a float32 scale per output."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    values = (weight / scale).round().clamp(-127, 127)
    return {"weight": values.to(torch.int8), "weight_scale": scale}, values * scale


def _awq(weight: torch.Tensor) -> tuple[_Tensors, torch.Tensor]:
    """Words of eight outputs; a scale and a zero, which is not always the middle, per group and output."""
    groups = weight.T.reshape(-1, GROUP_SIZE, len(weight))  # [groups, inputs of one, out]
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    scale = _power_of_two((high - low) / (2**BITS - 2))
    zero = (-low / scale).round().clamp(0, 2**BITS - 1)
    values = ((groups / scale).round() + zero).clamp(0, 2**BITS - 1)
    order = list(_AWQ_ORDER)
    parts = {
        "qweight": _words(values.reshape(weight.shape[1], -1, _PACK)[:, :, order]),
        "qzeros": _words(zero.view(len(zero), -1, _PACK)[:, :, order]),
        "scales": scale.squeeze(1).half(),
    }
    return parts, ((values - zero) * scale).flatten(0, 1).T


def _gptq(weight: torch.Tensor) -> tuple[_Tensors, torch.Tensor]:
    """Words of eight inputs; a scale per group and output, and the zero in the middle, written one too small."""
    groups = weight.T.reshape(-1, GROUP_SIZE, len(weight))
    middle = 2 ** (BITS - 1)
    scale = _power_of_two(groups.abs().amax(1, keepdim=True) / (middle - 1))
    values = (groups / scale).round().clamp(-middle, middle - 1)
    zeros = torch.full_like(scale.squeeze(1), middle - 1)
    parts = {
        "qweight": _words((values + middle).reshape(-1, _PACK, len(weight)).transpose(1, 2)),
        "qzeros": _words(zeros.view(len(zeros), -1, _PACK)),
        "scales": scale.squeeze(1).half(),
        "g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // GROUP_SIZE,
    }
    return parts, (values * scale).flatten(0, 1).T


SCHEMES: Mapping[Scheme, Callable[[torch.Tensor], tuple[_Tensors, torch.Tensor]]] = {
    "w8a8": _w8a8,
    "awq": _awq,
    "gptq": _gptq,
}


def _power_of_two(scale: torch.Tensor) -> torch.Tensor:
    """The next one that is not smaller."""
    return torch.exp2(torch.ceil(torch.log2(scale)))


def _words(values: torch.Tensor) -> torch.Tensor:
    """Whole numbers [..., 8] of 4 bits to int32 [...], the first in the lowest bits."""
    shifts = torch.arange(0, 32, BITS)
    words = (values.to(torch.int64) << shifts).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
