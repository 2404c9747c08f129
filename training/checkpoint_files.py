"""The files of a Qwen2-VL checkpoint folder: what transformers, vLLM and this server read."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from model_executor.checkpoint.processor_files import CLIP_MEAN, CLIP_STD
from model_executor.processor.tokenizer import Tokenizer
from training.model import Model
from training.qwen_tokenizer import SPECIAL_TOKENS
from training.recipe import Recipe, Shape, SizeLimits

CHAT_TEMPLATE = """\
{%- set counts = namespace(image=0, video=0) -%}
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' or 'image' in part or 'image_url' in part -%}
{%- set counts.image = counts.image + 1 -%}
{{ 'Picture ' + counts.image | string + ': ' if add_vision_id else '' -}}
{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part['type'] == 'video' or 'video' in part or 'video_url' in part -%}
{%- set counts.video = counts.video + 1 -%}
{{ 'Video ' + counts.video | string + ': ' if add_vision_id else '' -}}
{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif 'text' in part -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{{ '<|im_start|>assistant\\n' if add_generation_prompt else '' }}"""


def write_checkpoint(model: Model, recipe: Recipe, tokenizer_folder: Path, folder: Path) -> None:
    """Write every file of the checkpoint into `folder`; weights are float32."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.cpu().contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes for the owner only
    (folder / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    tokenizer = Tokenizer(folder)
    _write(folder / "config.json", config(recipe.shape, tokenizer))
    _write(folder / "generation_config.json", _generation(tokenizer))
    _write(folder / "tokenizer_config.json", _tokenizer_config(recipe.shape))
    _write(folder / "preprocessor_config.json", _image_processor(recipe.limits))
    _write(folder / "video_preprocessor_config.json", _video_processor(recipe.limits))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def config(shape: Shape, tokenizer: Tokenizer) -> dict[str, Any]:
    """`config.json` in the layout of the release: the language model's fields on top."""
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "bos_token_id": tokenizer.special_id("<|endoftext|>"),
        "eos_token_id": tokenizer.special_id("<|im_end|>"),
        "vision_start_token_id": tokenizer.special_id("<|vision_start|>"),
        "vision_end_token_id": tokenizer.special_id("<|vision_end|>"),
        "vision_token_id": tokenizer.special_id("<|vision_pad|>"),
        "image_token_id": tokenizer.special_id("<|image_pad|>"),
        "video_token_id": tokenizer.special_id("<|video_pad|>"),
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "intermediate_size": shape.intermediate_size,
        "hidden_act": "silu",
        "rms_norm_eps": shape.rms_norm_eps,
        "max_position_embeddings": shape.max_position_embeddings,
        "rope_theta": shape.rope_theta,
        "rope_scaling": {"type": "mrope", "mrope_section": list(shape.mrope_section)},
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "torch_dtype": "float32",
        "vision_config": {
            "depth": shape.vision_depth,
            "embed_dim": shape.vision_size,
            "hidden_size": shape.hidden_size,
            "num_heads": shape.vision_heads,
            "mlp_ratio": shape.vision_mlp_ratio,
            "hidden_act": "quick_gelu",
            "in_channels": 3,
            "in_chans": 3,
            "patch_size": 14,
            "spatial_patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


def _generation(tokenizer: Tokenizer) -> dict[str, Any]:
    end, pad = tokenizer.special_id("<|im_end|>"), tokenizer.special_id("<|endoftext|>")
    return {"bos_token_id": pad, "pad_token_id": pad, "eos_token_id": [end, pad], "do_sample": False}


def _tokenizer_config(shape: Shape) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.max_position_embeddings,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
    }


def _processor(min_pixels: int, max_pixels: int) -> dict[str, Any]:
    return {
        "min_pixels": min_pixels,
        "max_pixels": max_pixels,
        "size": {"shortest_edge": min_pixels, "longest_edge": max_pixels},
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
    }


def _image_processor(limits: SizeLimits) -> dict[str, Any]:
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        **_processor(limits.image_min_pixels, limits.image_max_pixels),
    }


def _video_processor(limits: SizeLimits) -> dict[str, Any]:
    return {
        "video_processor_type": "Qwen2VLVideoProcessor",
        **_processor(limits.video_min_pixels, limits.video_max_pixels),
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
