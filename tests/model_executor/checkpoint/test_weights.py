"""Every weight is accounted for: names and shapes against transformers' own model, and files on disk."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText

from model_executor.checkpoint.errors import CheckpointError
from model_executor.checkpoint.weights import MAX_NAMED, check_tensors, check_weights
from model_executor.families.known import family_of
from tests.model_executor.checkpoint.test_folders import nested, released
from training.random_checkpoint import CheckpointShape, write_random_checkpoint
from training.random_qwen_vl import QwenVLShape, write_random_qwen_vl
from training.random_weights import TextShape, VisionShape

_Tensors = dict[str, torch.Tensor]

QWEN2_5 = nested("7B") | {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584},
}


@pytest.mark.parametrize("config", [released("2B"), nested("7B"), QWEN2_5], ids=["2B", "7B", "Qwen2.5"])
def test_the_tensors_are_those_of_transformers(config: dict[str, Any]) -> None:
    read = AutoConfig.for_model(config["model_type"]).from_dict(config)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(read)  # type: ignore[no-untyped-call]
    theirs = {name: (tuple(value.shape), "BF16") for name, value in model.state_dict().items()}
    check_tensors(config, theirs)
    names = {name.replace("model.visual.", "visual.").replace("language_model.", "") for name in theirs}
    if config["tie_word_embeddings"]:
        names.discard("lm_head.weight")
    assert {name for name, _ in family_of(config).tensors(config)} == names


QWEN_VL: dict[str, Any] = {
    "architectures": ["QWenLMHeadModel"],
    "hidden_size": 4096,
    "intermediate_size": 22_016,
    "num_hidden_layers": 32,
    "vocab_size": 151_936,
    "visual": {"layers": 48, "mlp_ratio": 4.9231, "output_dim": 4096, "patch_size": 14, "width": 1664},
}


def test_the_tensors_of_the_first_generation_have_as_many_values_as_its_report_says() -> None:
    sizes = {name: math.prod(shape) for name, shape in family_of(QWEN_VL).tensors(QWEN_VL)}
    tower = sum(size for name, size in sizes.items() if name.startswith("transformer.visual."))
    assert int(sum(sizes.values()) / 1e8) / 10 == 9.6  # table 1 cuts
    assert round((sum(sizes.values()) - tower) / 1e9, 1) == 7.7


@pytest.mark.slow
def test_a_first_generation_checkpoint_is_accounted_for(tmp_path: Path) -> None:
    shape = QwenVLShape(num_layers=1, intermediate=32, vision_layers=1, vocab_size=151_860)
    write_random_qwen_vl(tmp_path, shape)
    tensors: _Tensors = {}
    for file in tmp_path.glob("pytorch_model*.bin"):
        tensors |= torch.load(file, weights_only=True)
    config = json.loads((tmp_path / "config.json").read_text())
    headers = {name: (tuple(value.shape), "BF16") for name, value in tensors.items()}
    constants = {"transformer.rotary_emb.inv_freq": ((64,), "F32"), "transformer.h.0.attn.masked_bias": ((), "F32")}
    check_tensors(config, headers | constants)
    assert dict(family_of(config).tensors(config)) == {name: shape for name, (shape, _) in headers.items()}
    for part in ("transformer.visual.attn_pool.query", "transformer.h.0.mlp.w2.weight", "lm_head.weight"):
        with pytest.raises(CheckpointError, match=f"they lack '{part}'"):
            check_tensors(config, {name: value for name, value in headers.items() if name != part})
    with pytest.raises(CheckpointError, match=r"hold 'transformer\.h\.1\.ln_1\.weight'"):
        check_tensors(config, headers | {"transformer.h.1.ln_1.weight": ((256,), "BF16")})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files, a head of its own."""
    folder = tmp_path_factory.mktemp("whole")
    text = TextShape(num_layers=1, hidden=32, intermediate=32, num_heads=1, num_kv_heads=1, mrope_section=(4, 6, 6))
    shape = CheckpointShape(text=text, vision=VisionShape(depth=1, width=16), tied=False, num_shards=3)
    write_random_checkpoint(folder, shape)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """The same in one file."""
    shutil.copy(whole / "config.json", tmp_path)
    tensors: _Tensors = {}
    for shard in whole.glob("*.safetensors"):
        tensors |= load_file(shard)
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def edit(folder: Path, change: Callable[[_Tensors], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_a_whole_checkpoint_passes(folder: Path) -> None:
    check_weights(folder)


def test_a_folder_of_other_weight_files_is_left_to_the_engine(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    check_weights(folder)


FAULTS: dict[str, tuple[Callable[[_Tensors], object], str]] = {
    "no head": (lambda t: t.pop("lm_head.weight"), r"they lack 'lm_head.weight'; get"),
    "no bias": (lambda t: t.pop("model.layers.0.self_attn.q_proj.bias"), r"they lack 'model.*q_proj.bias'"),
    "no patches": (lambda t: t.pop("visual.patch_embed.proj.weight"), r"they lack 'visual.patch_embed.proj.weight'"),
    "another layer": (
        lambda t: t.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(1)}),
        r"they hold 'model.layers.1.mlp.up_proj.weight', which no such model has",
    ),
    "a value head": (lambda t: t.update({"v_head.summary.weight": torch.zeros(1)}), r"hold 'v_head.summary.weight'"),
    "a small vocabulary": (
        lambda t: t.update({"model.embed_tokens.weight": torch.zeros(8, 32)}),
        r"wrong shapes: 'model.embed_tokens.weight' is \[8, 32\] instead of \[151936, 32\]",
    ),
    "transposed": (
        lambda t: t.update({"visual.blocks.0.mlp.fc1.weight": torch.zeros(16, 64)}),
        r"'visual.blocks.0.mlp.fc1.weight' is \[16, 64\] instead of \[64, 16\]",
    ),
    "no scale": (
        lambda t: t.update({"model.layers.0.mlp.up_proj.weight": torch.zeros(32, 32).to(torch.float8_e4m3fn)}),
        r"lack 'model.layers.0.mlp.up_proj.weight_scale'",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_does_not_fit_is_named(folder: Path, name: str) -> None:
    change, says = FAULTS[name]
    edit(folder, change)
    with pytest.raises(CheckpointError, match=says):
        check_weights(folder)


def test_at_most_ten_are_named(folder: Path) -> None:
    edit(folder, lambda tensors: [tensors.pop(name) for name in [*tensors] if name.startswith("visual.")])
    with pytest.raises(CheckpointError) as caught:
        check_weights(folder)
    assert str(caught.value).count("'visual.") == MAX_NAMED and "and 9 more" in str(caught.value)


def test_a_missing_shard_and_a_cut_file_are_named(whole: Path, tmp_path: Path) -> None:
    check_weights(whole)
    for path in (*whole.glob("*.safetensors"), whole / "config.json", whole / "model.safetensors.index.json"):
        shutil.copy(path, tmp_path)
    shard = tmp_path / "model-00002-of-00003.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003.safetensors .*cut off"):
        check_weights(tmp_path)
    shard.unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-00002-of-00003.safetensors, which .*index.json names"):
        check_weights(tmp_path)
