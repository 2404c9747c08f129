"""A model folder and what its small files say: limits, end tokens, chat template.

What it does not: read weights (the engine does) or the tokenizer (`model_executor/processor/tokenizer.py`).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from model_executor.checkpoint.quantization import Quantisation, quantisation_of
from model_executor.processor.geometry import TOKEN_PX, VIDEO_FRAME_MAX_PIXELS, VIDEO_FRAME_MIN_PIXELS

ARCHITECTURE = "Qwen2VLForConditionalGeneration"
BUNDLED_MODEL = "tessera-tiny"
"""Name of the checkpoint that ships with the project."""
_BUNDLE = Path(__file__).parents[2] / "training" / "bundle"
DEFAULT_IMAGE_MIN_PIXELS = 4 * TOKEN_PX
DEFAULT_IMAGE_MAX_PIXELS = 16_384 * TOKEN_PX
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class CheckpointError(Exception):
    """The model cannot be found, fetched or understood; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the server must know of a model before its weights are loaded."""

    folder: Path
    max_model_len: int
    """Context length in tokens that the model was made for."""
    image_min_pixels: int
    image_max_pixels: int
    """Limits of a resized picture's area, as the model was trained."""
    video_min_pixels: int
    """Lower limit of a resized frame's area; gives way to the token cap."""
    video_max_pixels: int
    """Upper limit of a resized frame's area, besides those of `geometry.video_size`."""
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    """Per channel, of pixels in 0..1: what the model was trained to see subtracted and divided by."""
    end_token_ids: tuple[int, ...]
    """Ids after which an answer is over."""
    chat_template: str | None
    """Jinja source; None where the checkpoint ships none."""
    quantisation: Quantisation | None
    """How the weights are stored; None where they are plain."""
    is_float32: bool
    """Whether the model was made in float32; released ones are made in bfloat16."""

    def number_format(self, *, cpu: bool, native_bfloat16: bool) -> Literal["bfloat16", "float32"]:
        """What to compute in where nobody said.

        A model made in float32 gives other answers in bfloat16 now and then, and is small enough for a CPU.

        Args:
            cpu: whether a CPU computes.
            native_bfloat16: whether that multiplies bfloat16 itself.
        """
        if self.quantisation is not None and self.quantisation.needs_bfloat16:
            return "bfloat16"
        return "float32" if cpu and (self.is_float32 or not native_bfloat16) else "bfloat16"


def resolve_checkpoint(model: str) -> Path:
    """The local folder of `model`: a folder, the bundled model by its name, or a hub id, downloaded once.

    Blocks while it downloads.

    Raises:
        CheckpointError: neither a folder nor a hub id that can be fetched.
    """
    folder = _BUNDLE if model == BUNDLED_MODEL else Path(model).expanduser()
    if folder.is_dir():
        return folder
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise CheckpointError(f"there is no model folder {model!r}")
    from huggingface_hub import snapshot_download  # slow to import, and rarely needed
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"{model!r} is neither a folder nor a model the hub gives out: {error}") from error


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the small files of a model folder.

    Raises:
        CheckpointError: a file is missing or malformed, or the model is not a Qwen2-VL.
    """
    config = _read_json(folder / "config.json")
    if ARCHITECTURE not in config.get("architectures", []):
        raise CheckpointError(f"the model is {config.get('architectures')}, not {ARCHITECTURE}")
    text = config.get("text_config", config)  # transformers 5 nests what the release kept at the top
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError("the model folder has no tokenizer.json")
    generation = _read_json(folder / "generation_config.json", optional=True)
    ends = generation.get("eos_token_id", config.get("eos_token_id", text.get("eos_token_id", [])))
    image = _read_json(folder / "preprocessor_config.json", optional=True)
    video = _read_json(folder / "video_preprocessor_config.json", optional=True)
    return Checkpoint(
        folder=folder,
        max_model_len=_positive(text, "max_position_embeddings"),
        image_min_pixels=_pixels(image, "min_pixels", "shortest_edge", DEFAULT_IMAGE_MIN_PIXELS),
        image_max_pixels=_pixels(image, "max_pixels", "longest_edge", DEFAULT_IMAGE_MAX_PIXELS),
        video_min_pixels=_pixels(video, "min_pixels", "shortest_edge", VIDEO_FRAME_MIN_PIXELS),
        video_max_pixels=_pixels(video, "max_pixels", "longest_edge", VIDEO_FRAME_MAX_PIXELS),
        image_mean=_channels(image, "image_mean", CLIP_MEAN),
        image_std=_channels(image, "image_std", CLIP_STD),
        end_token_ids=tuple(ends) if isinstance(ends, list) else (ends,),
        chat_template=_chat_template(folder),
        quantisation=quantisation_of(config),
        is_float32=(config.get("dtype") or config.get("torch_dtype") or text.get("dtype")) == "float32",
    )


def _chat_template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text("utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = _read_json(folder / name, optional=True).get("chat_template")
        if isinstance(template, str):
            return template
    return None


def _pixels(values: dict[str, Any], name: str, size_key: str, default: int) -> int:
    """A pixel limit: named directly (the release), or inside `size` (transformers 5)."""
    if values.get(name) is not None:
        return _positive(values, name)
    size = values.get("size") or {}
    return _positive(size, size_key) if size_key in size else default


def _channels(values: dict[str, Any], key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    value = values.get(key, default)
    if len(value) != 3 or not all(isinstance(item, int | float) for item in value):
        raise CheckpointError(f"the model's {key} is {value!r}, not three numbers")
    return (float(value[0]), float(value[1]), float(value[2]))


def _positive(values: dict[str, Any], key: str) -> int:
    value = values.get(key)
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(f"the model's {key} is {value!r}, not a positive whole number")
    return value


def _read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    if optional and not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"the model folder has no {path.name}") from error
    except ValueError as error:
        raise CheckpointError(f"the model's {path.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"the model's {path.name} is not a JSON object")
    return value
