"""LoRA adapters in PEFT's format: lists a directory's adapters and checks that they fit the model.

vLLM silently skips weights that match no module and pads those of the wrong shape. So every tensor's name and shape is
checked here, before anything is loaded. Does not read the weights (vLLM does) or check PEFT's variants of LoRA
(`model_executor/engine_process/vllm_config.py` has vLLM do that).

Source: PEFT's checkpoint format; arXiv 2106.09685 section 4.1: a weight W [out, in] becomes W + scale * B A, A [r, in],
B [out, r].
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from model_executor.checkpoint.errors import CheckpointError
from model_executor.checkpoint.json_file import read_json
from model_executor.families.known import family_of

MAX_RANK = 512
"""The largest rank vLLM supports."""
_TENSOR = re.compile(
    r"base_model\.model\.(?:model\.|model\.language_model\.|language_model\.)"
    r"layers\.(\d+)\.(self_attn|mlp)\.(\w+)\.lora_([AB])\.weight"
)
"""PEFT's tensor names, for both generations of transformers' Qwen2-VL."""
_OWN_TENSOR = re.compile(r"base_model\.model\.transformer\.h\.(\d+)\.(attn|mlp)\.(\w+)\.lora_([AB])\.weight")
"""The same for families whose modules have names of their own."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that fits the model."""

    name: str
    """The name of its directory, which clients use as the model name."""
    directory: Path
    config: dict[str, Any]
    """Its `adapter_config.json`."""
    rank: int
    """The largest rank of its modules."""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """As `Family.adapter_names`."""


def read_adapters(directory: Path | None, model: Path) -> list[Adapter]:
    """The adapters in a directory, sorted by name; hidden subdirectories are ignored.

    Args:
        directory: has one subdirectory per adapter; None: there are no adapters.
        model: the model's directory.

    Raises:
        CheckpointError: an adapter is incomplete, or does not fit this model's language model.
    """
    if directory is None:
        return []
    directory = directory.expanduser()
    if not directory.is_dir():
        raise CheckpointError("TESSERA_ENGINE__LORA_DIR is not a directory")
    adapter_dirs = sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not adapter_dirs:
        raise CheckpointError("TESSERA_ENGINE__LORA_DIR has no subdirectory; each adapter needs one of its own")
    config = read_json(model / "config.json", "the model")
    family = family_of(config)
    shapes = _module_shapes(family.text_config(config), family.adapter_names)
    return [replace(_read_adapter(path, shapes), names=family.adapter_names) for path in adapter_dirs]


_Shapes = dict[str, tuple[int, int]]
"""(out, in) of each module, named `LAYER.self_attn.q_proj`."""


def _read_adapter(directory: Path, shapes: _Shapes) -> Adapter:
    owner = f"the adapter {directory.name!r}"
    config = read_json(directory / "adapter_config.json", owner)
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{owner} has the type {config.get('peft_type')!r}; only 'LORA' is supported")
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    if not all(isinstance(rank, int) and 0 < rank <= MAX_RANK for rank in ranks):
        raise CheckpointError(f"{owner} has the rank {ranks[0]!r}; integers from 1 to {MAX_RANK} are supported")
    _check_tensors(owner, _tensor_shapes(directory / "adapter_model.safetensors", owner), ranks, shapes)
    return Adapter(directory.name, directory, config, max(ranks))


def _check_tensors(owner: str, tensors: dict[str, list[int]], ranks: list[int], shapes: _Shapes) -> None:
    """Check that each tensor belongs to a module, has its shape, and comes with its partner (A with B)."""
    pairs: dict[str, dict[str, list[int]]] = {}
    for name, shape in tensors.items():
        match = _TENSOR.fullmatch(name) or _OWN_TENSOR.fullmatch(name)
        module = f"{match[1]}.{match[2]}.{match[3]}" if match else ""
        if match is None or module not in shapes:
            raise CheckpointError(
                f"{owner} changes {name!r}; only the attention and MLP projections of the language model's layers can"
                " be adapted"
            )
        pairs.setdefault(module, {})[match[4]] = shape
    if not pairs:
        raise CheckpointError(f"{owner} has no weights")
    for module, pair in pairs.items():
        num_out, num_in = shapes[module]
        if not any(pair == {"A": [rank, num_in], "B": [num_out, rank]} for rank in ranks):
            raise CheckpointError(
                f"{owner} has {pair} for layer {module}, which needs A [r, {num_in}] and B [{num_out}, r] with r"
                f" {' or '.join(map(str, ranks))}"
            )


def _module_shapes(text: Mapping[str, Any], names: Mapping[str, tuple[str, ...]]) -> _Shapes:
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
    if names:
        one_layer = {
            own: (sum(one_layer[each][0] for each in modules), one_layer[modules[0]][1])
            for own, modules in names.items()
        }
    return {
        f"{layer}.{module}": shape for layer in range(text["num_hidden_layers"]) for module, shape in one_layer.items()
    }


def _tensor_shapes(path: Path, owner: str) -> dict[str, list[int]]:
    """Shape of each tensor in a safetensors file."""
    if not path.is_file():
        raise CheckpointError(f"{owner} has no {path.name}")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} of {owner} is not a safetensors file: {error}") from error
