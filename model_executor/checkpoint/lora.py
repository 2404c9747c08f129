"""LoRA adapters in PEFT's format: which there are, and whether they fit the model.

vLLM would leave out weights it has no place for and pad those of the wrong shape, without a word. So every tensor's
name and shape is checked here, before anything is loaded. What it does not: read the weights (vLLM does), or judge
PEFT's variants of LoRA (`model_executor/engine_process/vllm_config.py` asks vLLM).

Source: PEFT's checkpoint format; arXiv 2106.09685 section 4.1: a weight W [out, in] becomes W + scale * B A, A [r, in],
B [out, r].
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from model_executor.checkpoint.config import CheckpointError

MAX_RANK = 512
"""The largest vLLM takes."""
_TENSOR = re.compile(
    r"base_model\.model\.(?:model\.|model\.language_model\.|language_model\.)"
    r"layers\.(\d+)\.(self_attn|mlp)\.(\w+)\.lora_([AB])\.weight"
)
"""As PEFT names them on either generation of transformers' Qwen2-VL."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that fits the model."""

    name: str
    """What clients call it: the name of its folder."""
    folder: Path
    config: dict[str, Any]
    """Its `adapter_config.json`."""
    rank: int
    """The largest of its modules."""


def read_adapters(folder: Path | None, model: Path) -> list[Adapter]:
    """The adapters below a folder, by name; hidden sub-folders are left out.

    Args:
        folder: has a sub-folder per adapter; None: there are none.
        model: the model folder.

    Raises:
        CheckpointError: an adapter is not whole, or not one of this model's language model.
    """
    if folder is None:
        return []
    folder = folder.expanduser()
    if not folder.is_dir():
        raise CheckpointError("TESSERA_ENGINE__LORA_DIR is not a folder")
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise CheckpointError("TESSERA_ENGINE__LORA_DIR has no sub-folder, and each adapter is one")
    shapes = _module_shapes(_read_json(model / "config.json", "the model"))
    return [_read_adapter(path, shapes) for path in found]


_Shapes = dict[str, tuple[int, int]]
"""(out, in) of each module, named `LAYER.self_attn.q_proj`."""


def _read_adapter(folder: Path, shapes: _Shapes) -> Adapter:
    what = f"the adapter {folder.name!r}"
    config = _read_json(folder / "adapter_config.json", what)
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{what} is of the type {config.get('peft_type')!r}, not 'LORA'")
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    if not all(isinstance(rank, int) and 0 < rank <= MAX_RANK for rank in ranks):
        raise CheckpointError(f"{what} has the rank {ranks[0]!r}; whole numbers from 1 to {MAX_RANK} can be served")
    _check_tensors(what, _tensor_shapes(folder / "adapter_model.safetensors", what), ranks, shapes)
    return Adapter(folder.name, folder, config, max(ranks))


def _check_tensors(what: str, tensors: dict[str, list[int]], ranks: list[int], shapes: _Shapes) -> None:
    """Every tensor has a module it fits and a partner it fits."""
    pairs: dict[str, dict[str, list[int]]] = {}
    for name, shape in tensors.items():
        match = _TENSOR.fullmatch(name)
        module = f"{match[1]}.{match[2]}.{match[3]}" if match else ""
        if match is None or module not in shapes:
            raise CheckpointError(
                f"{what} changes {name!r}; only the attention and MLP projections of the language model's layers can"
                " be adapted"
            )
        pairs.setdefault(module, {})[match[4]] = shape
    if not pairs:
        raise CheckpointError(f"{what} has no weights")
    for module, pair in pairs.items():
        num_out, num_in = shapes[module]
        if not any(pair == {"A": [rank, num_in], "B": [num_out, rank]} for rank in ranks):
            raise CheckpointError(
                f"{what} has {pair} for layer {module}, which takes A [r, {num_in}] and B [{num_out}, r] with r"
                f" {' or '.join(map(str, ranks))}"
            )


def _module_shapes(config: dict[str, Any]) -> _Shapes:
    text = config.get("text_config", config)
    hidden, inner, num_heads = text["hidden_size"], text["intermediate_size"], text["num_attention_heads"]
    kv = hidden // num_heads * text["num_key_value_heads"]
    one_layer = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    return {
        f"{layer}.{module}": shape for layer in range(text["num_hidden_layers"]) for module, shape in one_layer.items()
    }


def _tensor_shapes(path: Path, what: str) -> dict[str, list[int]]:
    """Shape of each tensor of a safetensors file."""
    if not path.is_file():
        raise CheckpointError(f"{what} has no {path.name}")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} of {what} is not a safetensors file: {error}") from error


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{what} has no {path.name}") from error
    except ValueError as error:
        raise CheckpointError(f"{path.name} of {what} is not JSON") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name} of {what} is not a JSON object")
    return value
