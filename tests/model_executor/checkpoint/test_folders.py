"""Folders as people have them: the releases, and what trainers, quantizers and versions of transformers make of them.

The configurations are written by hand after the public ones. Each row says what must come out; `WEIGHTS` says how the
tool names and stores tensors, of which only names, shapes and number formats are made up here.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from model_executor.checkpoint.config import Checkpoint, read_checkpoint
from model_executor.checkpoint.weights import check_tensors
from model_executor.families.family import Shape
from model_executor.families.known import family_of

_Json = dict[str, Any]
_Tensors = dict[str, tuple[Shape, str]]

MROPE = {"type": "mrope", "mrope_section": [16, 24, 24]}
BOTH = {"type": "default", "rope_type": "default", "mrope_section": [16, 24, 24]}
YARN = {"type": "yarn", "mrope_section": [16, 24, 24], "factor": 4, "original_max_position_embeddings": 32_768}
SIZES: dict[str, _Json] = {
    "2B": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "max_window_layers": 28,
        "tie_word_embeddings": True,
    },
    "7B": {
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152_064,
        "max_window_layers": 28,
        "tie_word_embeddings": False,
    },
    "72B": {
        "hidden_size": 8192,
        "intermediate_size": 29_568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 152_064,
        "max_window_layers": 80,
        "tie_word_embeddings": False,
    },
}
RELEASE_IMAGE = {"min_pixels": 3136, "max_pixels": 12_845_056, "image_processor_type": "Qwen2VLImageProcessor"}
GENERATION = {"eos_token_id": [151_645, 151_643], "temperature": 0.01, "top_k": 1, "top_p": 0.001}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}


def released(size: str, **changes: Any) -> _Json:
    """A `config.json` as the release has it, everything at the top."""
    text = SIZES[size]
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "eos_token_id": 151_645,
        "max_position_embeddings": 32_768,
        "rope_scaling": MROPE,
        "rope_theta": 1_000_000.0,
        "sliding_window": 32_768,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3}
        | {"hidden_size": text["hidden_size"], "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2},
        **text,
        **changes,
    }


def nested(size: str, **changes: Any) -> _Json:
    """A `config.json` as transformers 5 writes it, the language model in a section of its own."""
    text = {name: value for name, value in SIZES[size].items() if name != "tie_word_embeddings"}
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "dtype": "bfloat16",
        "model_type": "qwen2_vl",
        "text_config": {
            "eos_token_id": 151_645,
            "max_position_embeddings": 32_768,
            "rope_parameters": rope,
            "use_sliding_window": False,
            "sliding_window": None,
            "dtype": "bfloat16",
            **text,
        },
        "tie_word_embeddings": SIZES[size]["tie_word_embeddings"],
        "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": text["hidden_size"], "in_channels": 3},
        **changes,
    }


@dataclass(frozen=True)
class Folder:
    """One folder and what is read from it; the defaults are the release's."""

    config: _Json
    files: Mapping[str, _Json | str] = field(default_factory=dict)
    weights: str = "release"
    context: int = 32_768
    image: tuple[int, int] = (3136, 12_845_056)
    video: tuple[int, int] = (100_352, 602_112)
    ends: tuple[int, ...] = (151_645, 151_643)
    template: str | None = "T"
    tool_template: str | None = None
    quantization: str | None = None
    temperature: float | None = 0.01


_AUTOGPTQ_8 = GPTQ | {"bits": 8}
_W8A8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "config_groups": {
        "group_0": {"weights": {"num_bits": 8, "type": "int"}, "input_activations": {"num_bits": 8, "type": "int"}}
    },
    "ignore": ["lm_head", "re:visual.*"],
}
_W4A16 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}, "input_activations": None}},
    "ignore": ["lm_head", "re:visual.*"],
}
_FP8 = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {
        "group_0": {"weights": {"num_bits": 8, "type": "float"}, "input_activations": {"num_bits": 8, "type": "float"}}
    },
    "ignore": ["lm_head", "re:visual.*"],
}
_BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
_TOKENIZER = {"tokenizer_config.json": {"chat_template": "T"}}
_TEMPLATE_JSON = {"chat_template.json": {"chat_template": "T"}}
_JINJA = {"chat_template.jinja": "T"}
_NAMED = [{"name": "default", "template": "T"}, {"name": "tool_use", "template": "U"}]

FOLDERS: dict[str, Folder] = {
    "Qwen2-VL-2B-Instruct": Folder(released("2B"), _TEMPLATE_JSON),
    "Qwen2-VL-7B-Instruct": Folder(released("7B"), _TEMPLATE_JSON),
    "Qwen2-VL-72B-Instruct": Folder(released("72B"), _TEMPLATE_JSON),
    "Qwen2-VL-2B, the base model": Folder(
        released("2B", eos_token_id=151_643),
        {"generation_config.json": {"eos_token_id": 151_643, "max_new_tokens": 2048}},
        template=None,
        ends=(151_643,),
        temperature=None,
    ),
    "Qwen2-VL-2B-Instruct-AWQ": Folder(
        released("2B", quantization_config=AWQ | {"modules_to_not_convert": ["visual"]}, torch_dtype="float16"),
        _TEMPLATE_JSON,
        weights="awq",
        quantization="awq (int4)",
    ),
    "Qwen2-VL-7B-Instruct-GPTQ-Int4": Folder(
        released("7B", quantization_config=GPTQ), _TEMPLATE_JSON, weights="gptq", quantization="gptq (int4)"
    ),
    "Qwen2-VL-2B-Instruct-GPTQ-Int8": Folder(
        released("2B", quantization_config=_AUTOGPTQ_8), _TEMPLATE_JSON, weights="gptq", quantization="gptq (int8)"
    ),
    "LLaMA-Factory, merged, transformers 4.45": Folder(
        released("7B", transformers_version="4.45.2", rope_scaling=BOTH, use_cache=False),
        _TOKENIZER
        | {"preprocessor_config.json": RELEASE_IMAGE | {"size": {"min_pixels": 3136, "max_pixels": 12_845_056}}},
    ),
    "LLaMA-Factory, trained with image_max_pixels": Folder(
        released("2B", rope_scaling=BOTH),
        _TOKENIZER | {"preprocessor_config.json": {"size": {"min_pixels": 1024, "max_pixels": 589_824}}},
        image=(1024, 589_824),
    ),
    "LLaMA-Factory, transformers 4.52, both layouts in one file": Folder(
        released("7B", rope_scaling=BOTH) | {"text_config": {**released("7B", rope_scaling=BOTH)}}, _JINJA
    ),
    "ms-swift, full training with MAX_PIXELS": Folder(
        released("7B", rope_scaling=BOTH),
        _TEMPLATE_JSON | {"preprocessor_config.json": {"min_pixels": 3136, "max_pixels": 1_003_520}},
        image=(3136, 1_003_520),
    ),
    "ms-swift, Megatron export": Folder(nested("7B"), _JINJA, weights="transformers5"),
    "ms-swift, AWQ export": Folder(
        released("7B", quantization_config=AWQ | {"modules_to_not_convert": ["model.visual"]}, rope_scaling=BOTH),
        _JINJA,
        weights="awq",
        quantization="awq (int4)",
    ),
    "unsloth, merged to 16 bits": Folder(
        released("2B", unsloth_fixed=True, unsloth_version="2024.11.9", rope_scaling=BOTH, eos_token_id=151_645),
        _TOKENIZER,
    ),
    "unsloth, bnb-4bit": Folder(
        released("2B", quantization_config=_BNB, unsloth_fixed=True),
        _TOKENIZER,
        weights="bitsandbytes",
        quantization="bitsandbytes (of unknown format)",
    ),
    "transformers 4.45, save_pretrained": Folder(
        released("2B", rope_scaling=BOTH),
        _TEMPLATE_JSON
        | {"preprocessor_config.json": RELEASE_IMAGE | {"max_pixels": 401_408, "size": {"max_pixels": 401_408}}},
        image=(3136, 401_408),
    ),
    "transformers 4.49, size by edges": Folder(
        released("2B"),
        _JINJA | {"preprocessor_config.json": {"size": {"shortest_edge": 784, "longest_edge": 78_400}}},
        image=(784, 78_400),
    ),
    "transformers 4.52, a video file of its own": Folder(
        nested("2B", torch_dtype="bfloat16"),
        _JINJA | {"video_preprocessor_config.json": {"min_pixels": 6272, "size": {"longest_edge": 156_800}}},
        video=(6272, 156_800),
        weights="transformers5",
    ),
    "transformers 5, one processor_config.json": Folder(
        nested("7B"),
        _JINJA
        | {
            "processor_config.json": {
                "image_processor": {"size": {"shortest_edge": 3136, "longest_edge": 200_704}},
                "video_processor": {"size": {"shortest_edge": 12_544, "longest_edge": 301_056}},
                "processor_class": "Qwen2VLProcessor",
            }
        },
        image=(3136, 200_704),
        video=(12_544, 301_056),
        weights="transformers5",
    ),
    "transformers 5, the old files beside the new one": Folder(
        nested("2B"),
        _JINJA
        | {
            "preprocessor_config.json": RELEASE_IMAGE,
            "processor_config.json": {"image_processor": {"min_pixels": 784, "max_pixels": 313_600}},
        },
        image=(784, 313_600),
    ),
    "transformers 5, defaults of the 72B left out": Folder(
        {
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "model_type": "qwen2_vl",
            "text_config": {"rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24]}},
            "tie_word_embeddings": False,
            "vision_config": {"hidden_size": 8192},
        },
        _JINJA,
    ),
    "transformers 5, eos_token_id null": Folder(
        nested("2B"),
        _JINJA | {"generation_config.json": {"eos_token_id": None, "temperature": 0.01}},
        ends=(151_645,),
    ),
    "a generation_config.json of nulls": Folder(
        released("7B"),
        _TOKENIZER | {"generation_config.json": {"eos_token_id": None, "temperature": None, "top_p": None}},
        ends=(151_645,),
        temperature=None,
    ),
    "AutoAWQ of a fine-tuned model": Folder(
        nested("7B", quantization_config=AWQ | {"modules_to_not_convert": ["model.visual", "lm_head"]}),
        _JINJA,
        weights="awq",
        quantization="awq (int4)",
    ),
    "GPTQModel": Folder(
        released("2B", quantization_config=GPTQ | {"checkpoint_format": "gptq", "lm_head": False}),
        _TEMPLATE_JSON,
        weights="gptq",
        quantization="gptq (int4)",
    ),
    "llm-compressor, W8A8": Folder(
        released("2B", quantization_config=_W8A8),
        _TEMPLATE_JSON,
        weights="int8",
        quantization="compressed-tensors (int8 x int8)",
    ),
    "llm-compressor, W4A16": Folder(
        released("7B", quantization_config=_W4A16),
        _TEMPLATE_JSON,
        weights="packed",
        quantization="compressed-tensors (int4)",
    ),
    "llm-compressor, FP8 dynamic": Folder(
        released("7B", quantization_config=_FP8),
        _TEMPLATE_JSON,
        weights="fp8",
        quantization="compressed-tensors (float8 x float8)",
    ),
    "old compressed-tensors, compression_config": Folder(
        released("2B", compression_config=_W8A8),
        _TEMPLATE_JSON,
        weights="int8",
        quantization="compressed-tensors (int8 x int8)",
    ),
    "olmOCR-7B-0225": Folder(released("7B", transformers_version="4.46.2"), _TEMPLATE_JSON | {"vocab.json": {}}),
    "UI-TARS-2B-SFT": Folder(
        released("2B", rope_scaling=BOTH, image_token_id=151_655),
        _TEMPLATE_JSON | {"preprocessor_config.json": {"min_pixels": 3136, "max_pixels": 2_116_800}},
        image=(3136, 2_116_800),
    ),
    "UI-TARS-7B-DPO": Folder(
        released("7B", rope_scaling=BOTH),
        _TEMPLATE_JSON | {"preprocessor_config.json": {"min_pixels": 3136, "max_pixels": 2_116_800}},
        image=(3136, 2_116_800),
    ),
    "ShowUI-2B, a short vision_config": Folder(
        released("2B", vision_config={"hidden_size": 1536, "in_chans": 3, "model_type": "qwen2_vl"}), _TEMPLATE_JSON
    ),
    "QVQ-72B-Preview": Folder(released("72B", max_position_embeddings=128_000), _TEMPLATE_JSON, context=128_000),
    "the README's YaRN": Folder(released("7B", rope_scaling=YARN), _TEMPLATE_JSON, context=131_072),
    "YaRN as transformers 5 writes it": Folder(
        nested("7B")
        | {
            "text_config": nested("7B")["text_config"]
            | {"max_position_embeddings": 65_536, "rope_parameters": YARN | {"rope_type": "yarn", "factor": 2.0}}
        },
        _JINJA,
        context=65_536,
        weights="transformers5",
    ),
    "use_sliding_window where no layer slides": Folder(released("7B", use_sliding_window=True), _TOKENIZER),
    "a list of named templates": Folder(
        released("2B"), {"tokenizer_config.json": {"chat_template": _NAMED}}, tool_template="U"
    ),
    "named templates in files": Folder(
        nested("2B"), _JINJA | {"additional_chat_templates/tool_use.jinja": "U"}, tool_template="U"
    ),
    "a tied head written out": Folder(released("2B"), _TEMPLATE_JSON, weights="with head"),
    "rotary constants of transformers 4.3x": Folder(released("7B"), _TEMPLATE_JSON, weights="with constants"),
}


def stored(name: str, shape: Shape, how: str) -> Iterator[tuple[str, tuple[Shape, str]]]:
    """What a tool writes for one tensor of the language model's linear layers."""
    module, num_out, num_in = name.removesuffix(".weight"), shape[0], shape[-1]
    groups = max(1, num_in // 128)
    match how:
        case "awq":
            yield f"{module}.qweight", ((num_in, num_out // 8), "I32")
            yield f"{module}.qzeros", ((groups, num_out // 8), "I32")
            yield f"{module}.scales", ((groups, num_out), "F16")
        case "gptq":
            yield f"{module}.qweight", ((num_in // 8, num_out), "I32")
            yield f"{module}.qzeros", ((groups, num_out // 8), "I32")
            yield f"{module}.scales", ((groups, num_out), "F16")
            yield f"{module}.g_idx", ((num_in,), "I32")
            yield f"{module}.bias", ((num_out,), "F16")
        case "packed":
            yield f"{module}.weight_packed", ((num_out, num_in // 8), "I32")
            yield f"{module}.weight_scale", ((num_out, groups), "BF16")
            yield f"{module}.weight_shape", ((2,), "I64")
        case "int8" | "fp8":
            yield name, (shape, "I8" if how == "int8" else "F8_E4M3")
            yield f"{module}.weight_scale", ((num_out, 1), "BF16")
        case "bitsandbytes":
            yield name, ((num_out * num_in // 2, 1), "U8")
            yield f"{name}.absmax", ((num_out * num_in // 64,), "F32")
            yield f"{name}.quant_map", ((16,), "F32")
            yield f"{name}.quant_state.bitsandbytes__nf4", ((80,), "U8")
        case _:
            yield name, (shape, "BF16")


def tensors_of(folder: Folder) -> _Tensors:
    """Names, shapes and formats of a folder's tensors."""
    tensors: _Tensors = {}
    for name, shape in family_of(folder.config).tensors(folder.config):
        is_projection = name.startswith("model.layers.") and name.endswith("_proj.weight")
        tensors.update(stored(name, shape, folder.weights if is_projection else "plain"))
    if folder.weights == "with head":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    if folder.weights == "with constants":
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = ((64,), "F32")
    if folder.weights == "transformers5":
        new = {"visual.": "model.visual.", "model.": "model.language_model."}
        tensors = {
            next((b + name.removeprefix(a) for a, b in new.items() if name.startswith(a)), name): value
            for name, value in tensors.items()
        }
    return tensors


def read(folder: Folder, directory: Path) -> Checkpoint:
    files: Mapping[str, _Json | str] = {"generation_config.json": GENERATION, "tokenizer.json": {}, **folder.files}
    for name, content in {"config.json": folder.config, **files}.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_checkpoint(directory)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_read_right(name: str, tmp_path: Path) -> None:
    folder = FOLDERS[name]
    checkpoint = read(folder, tmp_path)
    assert checkpoint.max_model_len == folder.context
    assert (checkpoint.image_min_pixels, checkpoint.image_max_pixels) == folder.image
    assert (checkpoint.video_min_pixels, checkpoint.video_max_pixels) == folder.video
    assert checkpoint.end_token_ids == folder.ends
    assert (checkpoint.chat_template, checkpoint.tool_template) == (folder.template, folder.tool_template)
    assert (str(checkpoint.quantization) if checkpoint.quantization else None) == folder.quantization
    assert checkpoint.sampling_defaults.get("temperature") == folder.temperature
    check_tensors(folder.config, tensors_of(folder))


@pytest.mark.parametrize("name", FOLDERS)
def test_a_tensor_that_a_folder_lacks_is_named(name: str) -> None:
    folder = FOLDERS[name]
    tensors = tensors_of(folder)
    for part in ("layers.3.mlp.down_proj", "merger.mlp.2", "layers.0.input_layernorm"):
        cut = {key: value for key, value in tensors.items() if f"{part}." not in key}
        with pytest.raises(Exception, match=f"lack .*{part}.weight"):
            check_tensors(folder.config, cut)
