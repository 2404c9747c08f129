"""Adapters of Qwen-VL under Qwen2's names, as the model's layers have them: the same numbers in another directory."""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from model_executor.checkpoint.lora import Adapter


def translated(adapter: Adapter, scratch: Path) -> Path:
    """The directory of an adapter that vLLM can load: its own, or one written here.

    One matrix that changes queries, keys and values together becomes three: A is shared, B is cut.

    Args:
        adapter: checked (`model_executor/checkpoint/lora.py`).
        scratch: directory to write into.
    """
    if not adapter.names:
        return adapter.directory
    tensors = {}
    for name, tensor in load_file(adapter.directory / "adapter_model.safetensors").items():
        number, _, rest = name.removeprefix("base_model.model.transformer.h.").partition(".")
        module, _, side = rest.partition(".lora_")
        targets = adapter.names[module]
        pieces = [tensor] * len(targets) if side.startswith("A") else tensor.chunk(len(targets))
        for target, piece in zip(targets, pieces, strict=True):
            tensors[f"base_model.model.model.layers.{number}.{target}.lora_{side}"] = piece.clone()
    directory = scratch / adapter.name
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    modules = sorted({target.rpartition(".")[2] for targets in adapter.names.values() for target in targets})
    (directory / "adapter_config.json").write_text(json.dumps({**adapter.config, "target_modules": modules}))
    return directory
