"""What a model folder says, and how a bad one is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_executor.checkpoint.config import BUNDLED_MODEL, read_checkpoint, resolve_checkpoint
from model_executor.checkpoint.errors import CheckpointError

Edit = Callable[[str, dict[str, Any]], None]


@pytest.fixture
def folder(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    for path in tiny_checkpoint.glob("*.json"):
        shutil.copy(path, tmp_path)
    return tmp_path


@pytest.fixture
def edit(folder: Path) -> Edit:
    def change(name: str, values: dict[str, Any]) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**content, **values}))

    return change


def test_reads_limits_end_tokens_and_template(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    assert checkpoint.max_model_len == 32_768
    assert (checkpoint.image_min_pixels, checkpoint.image_max_pixels) == (3136, 12_845_056)
    assert (checkpoint.video_min_pixels, checkpoint.video_max_pixels) == (100_352, 602_112)
    assert checkpoint.end_token_ids == (151645, 151643)
    assert checkpoint.chat_template is not None and "<|im_start|>" in checkpoint.chat_template


def test_a_template_file_wins_over_the_tokenizer_config(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ 1 }}")
    assert read_checkpoint(folder).chat_template == "{{ 1 }}"


def test_reads_both_generations_of_pixel_limits_and_config(folder: Path, edit: Edit) -> None:
    size = {"shortest_edge": 784, "longest_edge": 7840}
    edit("preprocessor_config.json", {"min_pixels": None, "max_pixels": None, "size": size})
    edit("video_preprocessor_config.json", {"min_pixels": 1568, "size": {"longest_edge": 15_680}})
    edit("config.json", {"max_position_embeddings": None, "text_config": {"max_position_embeddings": 4096}})
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.image_min_pixels, checkpoint.image_max_pixels) == (784, 7840)
    assert (checkpoint.video_min_pixels, checkpoint.video_max_pixels) == (1568, 15_680)
    assert checkpoint.max_model_len == 4096


def test_without_optional_files_the_release_defaults_hold(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    (folder / "generation_config.json").unlink()
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.image_min_pixels, checkpoint.image_max_pixels) == (3136, 12_845_056)
    assert checkpoint.end_token_ids == (151645,)


@pytest.mark.parametrize(
    ("said", "cpu", "native", "expected"),
    [
        ({"torch_dtype": "float32"}, True, True, "float32"),
        ({"torch_dtype": None, "dtype": "float32"}, True, True, "float32"),
        ({"torch_dtype": "float32"}, False, False, "bfloat16"),
        ({"torch_dtype": "bfloat16"}, True, True, "bfloat16"),
        ({"torch_dtype": "bfloat16"}, True, False, "float32"),
        ({"torch_dtype": "float16"}, True, True, "bfloat16"),
        ({"torch_dtype": None}, True, True, "bfloat16"),
        ({"torch_dtype": "float32", "quantization_config": {"quant_method": "awq"}}, True, False, "bfloat16"),
    ],
)
def test_a_model_made_in_float32_is_computed_so_on_a_cpu(
    folder: Path, edit: Edit, said: dict[str, Any], cpu: bool, native: bool, expected: str
) -> None:
    edit("config.json", said)
    assert read_checkpoint(folder).number_format(cpu=cpu, native_bfloat16=native) == expected


def test_the_bundled_model_is_computed_in_float32_on_every_cpu() -> None:
    assert read_checkpoint(resolve_checkpoint(BUNDLED_MODEL)).number_format(cpu=True, native_bfloat16=True) == "float32"


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("config.json", {"architectures": ["LlamaForCausalLM"]}, "this is a Llama; Tessera serves Qwen-VL, Qwen2-VL"),
        ("config.json", {"architectures": ["Qwen3VLForConditionalGeneration"]}, "this is a Qwen3-VL"),
        ("config.json", {"vision_config": None}, "this is a text model"),
        ("config.json", {"max_position_embeddings": 0}, "max_position_embeddings"),
        ("preprocessor_config.json", {"max_pixels": "many"}, "max_pixels"),
    ],
)
def test_refuses_what_it_cannot_serve(folder: Path, edit: Edit, name: str, values: dict[str, Any], says: str) -> None:
    edit(name, values)
    with pytest.raises(CheckpointError, match=says):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_refuses_a_folder_that_lacks_a_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        read_checkpoint(folder)


def test_refuses_a_file_that_is_not_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        read_checkpoint(folder)


def test_resolves_the_name_of_the_bundled_model() -> None:
    assert read_checkpoint(resolve_checkpoint(BUNDLED_MODEL)).max_model_len >= 20_480


def test_resolves_a_folder_to_itself(folder: Path) -> None:
    assert resolve_checkpoint(str(folder)) == folder


@pytest.mark.parametrize("model", ["missing", "./missing/folder", "/missing/folder", "a/b/c"])
def test_refuses_a_directory_that_does_not_exist(model: str) -> None:
    with pytest.raises(CheckpointError, match="no model directory"):
        resolve_checkpoint(model)


def test_says_so_when_the_hub_does_not_give_a_model_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="nobody/nothing"):
        resolve_checkpoint("nobody/nothing")
