"""A small random checkpoint of the true architecture, with the true tokenizer, of any family.

Run it:

    python -m training.random_checkpoint --out models/random --seed 0 --family qwen2-vl

It answers nonsense, but never the same nonsense twice: the weights are scaled so that every token and every picture
changes what follows, which is what tests of exactness and a first `make serve` need. Nothing is trained here.

Source: Qwen2-VL and Qwen2.5-VL releases for `config.json` and weight names; transformers 5 for the newer generation of
both.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from model_executor.checkpoint.processor_files import CLIP_MEAN, CLIP_STD
from training.qwen_tokenizer import write_tokenizer
from training.random_qwen_vl import write_random_qwen_vl
from training.random_weights import (
    Named,
    Source,
    TextShape,
    VisionShape,
    WindowVisionShape,
    text_weights,
    vision_weights,
    window_vision_weights,
)


@dataclass(frozen=True, slots=True)
class CheckpointShape:
    """Everything that tells one random checkpoint from another, the seed aside."""

    text: TextShape = field(default_factory=TextShape)
    vision: VisionShape | WindowVisionShape = field(default_factory=VisionShape)
    """Qwen2-VL's tower, or Qwen2.5-VL's."""
    tied: bool = True
    """Whether the output head is the embedding (as in the released 2B model) or a matrix of its own (7B, 72B)."""
    dtype: torch.dtype = torch.bfloat16
    """Number format on disk."""
    names: Literal["release", "transformers5"] = "release"
    """Weight names and layout of `config.json`: as the release (`visual.*`, `model.*`) or as transformers 5 writes
    them (`model.visual.*`, `model.language_model.*`)."""
    num_shards: int = 1
    """Safetensors files the weights are spread over."""


_TOWERS: dict[str, VisionShape | WindowVisionShape] = {"qwen2-vl": VisionShape(), "qwen2.5-vl": WindowVisionShape()}


def write_random_checkpoint(folder: Path, shape: CheckpointShape | None = None, *, seed: int = 0) -> None:
    """Write a complete checkpoint folder; the same shape and seed give the same bytes.

    Args:
        folder: created if missing; files of the same names are replaced.
        shape: sizes and layout; the defaults make about 45 million parameters, 90 MB.
        seed: of the weights.

    Raises:
        ValueError: the sizes do not fit together.
    """
    shape = shape or CheckpointShape()
    _check(shape)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {_named(name, shape): value.to(shape.dtype) for name, value in _weights(shape, seed)}
    _write_weights(folder, weights, shape.num_shards)
    _write_json(folder / "config.json", _config(shape))
    _write_json(folder / "generation_config.json", _generation_config())
    _write_json(folder / "preprocessor_config.json", _preprocessor_config())
    write_tokenizer(folder, max_model_len=shape.text.max_model_len)


def _check(shape: CheckpointShape) -> None:
    text, vision = shape.text, shape.vision
    if text.hidden % text.num_heads or text.num_heads % text.num_kv_heads:
        raise ValueError("num_heads must divide hidden, and num_kv_heads must divide num_heads")
    if sum(text.mrope_section) * 2 != text.hidden // text.num_heads:
        raise ValueError(f"mrope_section {text.mrope_section} must add up to half of {text.hidden // text.num_heads}")
    if vision.width % (4 * vision.num_heads):
        raise ValueError("the vision tower's head dimension must be a multiple of 4")


def _weights(shape: CheckpointShape, seed: int) -> Named:
    """Float32 values under the names transformers 5 gives them."""
    source = Source(seed)
    if isinstance(shape.vision, VisionShape):
        yield from vision_weights(source, shape.vision, shape.text.hidden)
    else:
        yield from window_vision_weights(source, shape.vision, shape.text.hidden)
    yield from text_weights(source, shape.text)
    if not shape.tied:
        yield from source.token_rows("lm_head", shape.text.vocab_size, shape.text.hidden)


def _named(name: str, shape: CheckpointShape) -> str:
    if shape.names == "transformers5":
        return name
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def _write_weights(folder: Path, weights: dict[str, torch.Tensor], num_shards: int) -> None:
    for stale in folder.glob("model*.safetensors*"):
        stale.unlink()
    if num_shards == 1:
        _write_shard(folder / "model.safetensors", weights)
        return
    files = [f"model-{i + 1:05}-of-{num_shards:05}.safetensors" for i in range(num_shards)]
    home = {name: files[i % num_shards] for i, name in enumerate(weights)}
    for file in files:
        _write_shard(folder / file, {name: value for name, value in weights.items() if home[name] == file})
    total = sum(value.numel() * value.element_size() for value in weights.values())
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": home})


def _write_shard(path: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # the library makes files that only their owner may read


def _config(shape: CheckpointShape) -> dict[str, Any]:
    dtype = str(shape.dtype).removeprefix("torch.")
    language, tower = _text_config(shape.text), _vision_config(shape)
    theta, section = shape.text.rope_theta, list(shape.text.mrope_section)
    architecture, model_type = _names(shape)
    config: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": model_type,
        "tie_word_embeddings": shape.tied,
        "vision_start_token_id": 151_652,
        "vision_end_token_id": 151_653,
        "vision_token_id": 151_654,
        "image_token_id": 151_655,
        "video_token_id": 151_656,
    }
    config["transformers_version"] = "4.41.2" if shape.names == "release" else "5.19.0"  # what wrote files like these
    if shape.names == "release":
        rope = {"rope_theta": theta, "rope_scaling": {"type": "mrope", "mrope_section": section}}
        tower |= {"model_type": model_type, "in_chans": 3, "spatial_patch_size": 14}
        return config | language | rope | {"torch_dtype": dtype, "vision_config": tower}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": theta, "mrope_section": section}}
    return config | {
        "dtype": dtype,
        "text_config": language | rope | {"model_type": f"{model_type}_text", "dtype": dtype},
        "vision_config": tower | {"model_type": f"{model_type}_vision", "in_channels": 3, "dtype": dtype},
    }


def _names(shape: CheckpointShape) -> tuple[str, str]:
    """Architecture and model type."""
    if isinstance(shape.vision, VisionShape):
        return "Qwen2VLForConditionalGeneration", "qwen2_vl"
    return "Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl"


def _text_config(text: TextShape) -> dict[str, Any]:
    return {
        "hidden_size": text.hidden,
        "intermediate_size": text.intermediate,
        "num_hidden_layers": text.num_layers,
        "num_attention_heads": text.num_heads,
        "num_key_value_heads": text.num_kv_heads,
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.max_model_len,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "use_sliding_window": False,
        "bos_token_id": 151_643,
        "eos_token_id": 151_645,
    }


def _vision_config(shape: CheckpointShape) -> dict[str, Any]:
    vision = shape.vision
    config = {
        "depth": vision.depth,
        "num_heads": vision.num_heads,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    if isinstance(vision, VisionShape):
        return config | {
            "embed_dim": vision.width,
            "mlp_ratio": vision.mlp_ratio,
            "hidden_size": shape.text.hidden,
        }
    return config | {
        "hidden_size": vision.width,
        "intermediate_size": vision.intermediate,
        "hidden_act": "silu",
        "out_hidden_size": shape.text.hidden,
        "window_size": vision.window_px,
        "fullatt_block_indexes": list(vision.whole_slice_blocks),
        "tokens_per_second": vision.time_ids_per_s,
    }


def _generation_config() -> dict[str, Any]:
    return {"bos_token_id": 151_643, "pad_token_id": 151_643, "eos_token_id": [151_645, 151_643]}


def _preprocessor_config() -> dict[str, Any]:
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "min_pixels": 3136,
        "max_pixels": 12_845_056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def main() -> None:
    """Write a checkpoint of the default sizes."""
    parser = argparse.ArgumentParser(description="Write a small random checkpoint.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    families = ("qwen-vl", *_TOWERS)
    parser.add_argument("--family", choices=families, default="qwen2-vl", help="what the checkpoint is")
    arguments = parser.parse_args()
    if arguments.family == "qwen-vl":
        write_random_qwen_vl(arguments.out, seed=arguments.seed)
        return
    write_random_checkpoint(arguments.out, CheckpointShape(vision=_TOWERS[arguments.family]), seed=arguments.seed)


if __name__ == "__main__":
    main()
