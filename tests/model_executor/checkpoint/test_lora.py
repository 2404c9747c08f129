"""Which adapters are found, and which are refused before anything is loaded, with a sentence that says why."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_executor.checkpoint.errors import CheckpointError
from model_executor.checkpoint.lora import read_adapters
from tests.support.adapters import write_adapter


def test_finds_each_sub_folder_by_its_name(tiny_checkpoint: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "poet", tiny_checkpoint, rank=4, rank_pattern={"q_proj": 4, "v_proj": 4})
    write_adapter(tmp_path / "pirate", tiny_checkpoint, rank=16, modules=["self_attn.q_proj"], prefix="model.")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "notes.txt").write_text("not an adapter")
    found = read_adapters(tmp_path, tiny_checkpoint)
    assert [(adapter.name, adapter.rank) for adapter in found] == [("pirate", 16), ("poet", 4)]
    assert read_adapters(None, tiny_checkpoint) == []


def changed(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    save_file(tensors, path)


def said(folder: Path, **config: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


LAYER = "base_model.model.model.language_model.layers.0."
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "adapter_config.json").unlink(), "has no adapter_config.json"),
    "not json": (lambda folder: (folder / "adapter_config.json").write_text("{"), "adapter_config.json of .* not JSON"),
    "a list": (lambda folder: (folder / "adapter_config.json").write_text("[]"), "not a JSON object"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
    "no safetensors": (
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"pickled"),
        "not a safetensors file",
    ),
    "empty": (lambda folder: save_file({}, folder / "adapter_model.safetensors"), "has no weights"),
    "other method": (lambda folder: said(folder, peft_type="IA3"), "has the type 'IA3'; only 'LORA'"),
    "no rank": (lambda folder: said(folder, r=None), "has the rank None"),
    "large rank": (lambda folder: said(folder, r=1024), "has the rank 1024; integers from 1 to 512"),
    "other rank": (lambda folder: said(folder, r=8), r"with r 8"),
    "vision": (
        lambda folder: changed(folder, "base_model.model.visual.blocks.0.attn.qkv.lora_A.weight", torch.zeros(4, 16)),
        "changes 'base_model.model.visual.blocks.0.attn.qkv.lora_A.weight'; only the attention and MLP",
    ),
    "head": (
        lambda folder: changed(folder, "base_model.model.lm_head.lora_A.weight", torch.zeros(4, 32)),
        "changes 'base_model.model.lm_head.lora_A.weight'",
    ),
    "a layer too many": (
        lambda folder: changed(folder, LAYER.replace("0", "7") + "mlp.up_proj.lora_A.weight", torch.zeros(4, 32)),
        "changes '.*layers.7.mlp.up_proj",
    ),
    "magnitude": (
        lambda folder: changed(folder, LAYER + "mlp.up_proj.lora_magnitude_vector", torch.zeros(32)),
        "lora_magnitude_vector",
    ),
    "half a pair": (
        lambda folder: changed(folder, LAYER + "mlp.up_proj.lora_B.weight", None),
        r"for layer 0.mlp.up_proj, which needs A \[r, 32\] and B \[32, r\]",
    ),
    "other model": (
        lambda folder: changed(folder, LAYER + "mlp.up_proj.lora_A.weight", torch.zeros(4, 16)),
        r"'A': \[4, 16\].*for layer 0.mlp.up_proj",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_refuses_what_would_be_computed_wrongly(tiny_checkpoint: Path, tmp_path: Path, fault: str) -> None:
    make, reason = FAULTS[fault]
    make(write_adapter(tmp_path / "odd", tiny_checkpoint))
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_adapters(tmp_path, tiny_checkpoint)
    assert "'odd'" in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_refuses_a_folder_that_is_none_or_has_no_adapters(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="TESSERA_ENGINE__LORA_DIR is not a directory"):
        read_adapters(tmp_path / "none", tiny_checkpoint)
    with pytest.raises(CheckpointError, match="TESSERA_ENGINE__LORA_DIR has no subdirectory"):
        read_adapters(tmp_path, tiny_checkpoint)
