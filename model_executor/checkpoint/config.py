"""A checkpoint's configuration files: context length, pixel limits, end tokens, chat template, quantization.

Finds or downloads the checkpoint, too. Does not read weights (the engine does) or the tokenizer
(`model_executor/processor/tokenizer.py`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from model_executor.checkpoint.chat_templates import read_chat_templates
from model_executor.checkpoint.errors import CheckpointError
from model_executor.checkpoint.json_file import read_json
from model_executor.checkpoint.positions import Yarn, check_windows, context_length, read_yarn
from model_executor.checkpoint.processor_files import read_processor_files
from model_executor.checkpoint.quantization import Quantization, read_quantization
from model_executor.checkpoint.sampling_defaults import read_sampling_defaults
from model_executor.checkpoint.vocabulary import tokenizer_dir
from model_executor.families.family import Family
from model_executor.families.known import UnknownFamilyError, family_of
from model_executor.processor.chatml import PromptFormat

BUNDLED_MODEL = "tessera-tiny"
"""Name of the checkpoint that ships with the project."""
_BUNDLE = Path(__file__).parents[2] / "training" / "bundle"
_OWNER = "the model"
"""What the files belong to, in errors."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's configuration, known before its weights are loaded."""

    directory: Path
    family: Family
    tokenizer_dir: Path
    """Where its `tokenizer.json` is."""
    prompt_format: PromptFormat
    max_model_len: int
    """Context length in tokens that the model was trained for."""
    image_min_pixels: int
    image_max_pixels: int
    """Limits of a resized image's area, as the model was trained."""
    video_min_pixels: int
    """Lower limit of a resized frame's area; gives way to the token limit."""
    video_max_pixels: int
    """Upper limit of a resized frame's area, in addition to those of `geometry.video_size`."""
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    """Per channel, of pixels in 0..1: subtracted from and divided into the pixels the model was trained on."""
    end_token_ids: tuple[int, ...]
    """Ids that end an answer."""
    chat_template: str | None
    """Jinja source; None if the checkpoint has none."""
    tool_template: str | None
    """Jinja source for conversations with tools; None if `chat_template` is for these, too."""
    yarn: Yarn | None
    """How the context was stretched after training; None if it was not."""
    quantization: Quantization | None
    """How the weights are quantized; None if they are not."""
    sampling_defaults: Mapping[str, float]
    """How to sample where a request does not say, by its fields' names (`generation_config.json`)."""
    is_float32: bool
    """Whether the model was trained in float32; released ones were trained in bfloat16."""
    time_ids_per_s: float | None
    """As `Family.time_ids_per_s`."""
    trained_tokens: int | None
    """As `Family.trained_tokens`."""

    def number_format(
        self, *, cpu: bool, native_bfloat16: bool, int8_tiles: bool = False
    ) -> Literal["bfloat16", "float32"]:
        """The number format to compute in unless the settings name one.

        A model trained in float32 sometimes answers differently in bfloat16, and is small enough for a CPU.

        Args:
            cpu: whether the model runs on a CPU.
            native_bfloat16: whether the CPU has bfloat16 instructions.
            int8_tiles: whether the CPU multiplies tiles of 8-bit integers.
        """
        if self.quantization is not None and self.quantization.needs_bfloat16(int8_tiles=cpu and int8_tiles):
            return "bfloat16"
        return "float32" if cpu and (self.is_float32 or not native_bfloat16) else "bfloat16"


def resolve_checkpoint(model: str) -> Path:
    """The local directory of a model. Blocks while it downloads.

    Args:
        model: a directory, the bundled model's name, or a Hugging Face hub id, which is downloaded once.

    Raises:
        CheckpointError: neither a directory nor a hub id that can be downloaded.
    """
    directory = _BUNDLE if model == BUNDLED_MODEL else Path(model).expanduser()
    if directory.is_dir():
        return directory
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise CheckpointError(f"there is no model directory {model!r}")
    from huggingface_hub import snapshot_download  # slow to import, and rarely needed
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        files = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.tiktoken"]
        directory = Path(snapshot_download(model, allow_patterns=files))
        if not any(directory.glob("*.safetensors")):  # the first generation has its weights as a pickle only
            snapshot_download(model, allow_patterns=["pytorch_model*.bin"])
        return directory
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{model!r} is not a directory, and it cannot be downloaded from the Hugging Face hub: {error}"
        ) from error


def read_checkpoint(directory: Path) -> Checkpoint:
    """Read the configuration files of a model directory.

    Raises:
        CheckpointError: a file is missing or malformed, or the model is of no family that is served.
    """
    config = read_json(directory / "config.json", _OWNER)
    try:
        family = family_of(config)
    except UnknownFamilyError as error:
        raise CheckpointError(str(error)) from error
    text = dict(family.text_config(config))
    generation = read_json(directory / "generation_config.json", _OWNER, optional=True)
    ends: int | list[int] = next(
        (file["eos_token_id"] for file in (generation, config, text) if file.get("eos_token_id") is not None), []
    )
    check_windows(text)
    chat_template, tool_template = read_chat_templates(directory)
    return Checkpoint(
        directory=directory,
        family=family,
        tokenizer_dir=tokenizer_dir(directory, family),
        prompt_format=_prompt_format(family, generation),
        max_model_len=context_length(text),
        **asdict(read_processor_files(directory)),
        end_token_ids=family.end_token_ids or (tuple(ends) if isinstance(ends, list) else (ends,)),
        chat_template=chat_template,
        tool_template=tool_template,
        yarn=read_yarn(text),
        quantization=read_quantization(config),
        sampling_defaults=read_sampling_defaults(generation),
        is_float32=(config.get("dtype") or config.get("torch_dtype") or text.get("dtype")) == "float32",
        time_ids_per_s=family.time_ids_per_s(config),
        trained_tokens=family.trained_tokens(config),
    )


def _prompt_format(family: Family, generation: Mapping[str, Any]) -> PromptFormat:
    """The family's; the first generation says in its generation config whether it was trained on conversations."""
    if family.names_chat_format and generation.get("chat_format") != "chatml":
        return replace(family.prompt_format, is_raw=True)
    return family.prompt_format


def weight_bytes(directory: Path) -> int:
    """Size of a model directory's weights; 0 if it has none."""
    files = [*directory.glob("*.safetensors")] or directory.glob("pytorch_model*.bin")
    return sum(path.stat().st_size for path in files)
