"""The interface of a family of models: everything that differs between Qwen2-VL and its relatives, in one value.

What all share is not here: patches of 14 x 14 pixels, tokens of 2 x 2 patches, grids, ChatML, and Qwen2's decoder
layers. A family is this value and a model class for vLLM (`model_executor/models/`); `known.py` lists them all.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from model_executor.processor.chatml import PromptFormat
from model_executor.processor.geometry import Size

Config = Mapping[str, Any]
"""A checkpoint's `config.json`."""
Shape = tuple[int, ...]
NamedShape = tuple[str, Shape]
"""A tensor's name in a checkpoint, and its shape."""
BoxUnit = Literal["thousandth", "pixel"]
"""What the model counts a box's corners in: thousandths of the image's sides, or pixels of the image as it sees it."""


@dataclass(frozen=True, slots=True)
class Family:
    """What is particular about one family."""

    name: str
    """As its authors write it."""
    architecture: str
    """What `config.json` names it by."""
    vision_section: str
    """The part of `config.json` that describes the vision tower; a text model of the same architecture lacks it."""
    model_class: str
    """The class that vLLM runs, as `module:class`; imported by the engine's processes only."""
    tensors: Callable[[Config], Iterator[NamedShape]]
    """All tensors of a checkpoint, by the release's names, as if nothing were quantized."""
    prompt_format: PromptFormat
    """How prompts are written where the checkpoint has no chat template, and which tokens stand for media."""
    box_unit: BoxUnit
    """Of boxes in answers."""
    text_config: Callable[[Config], Config]
    """The language model's part of `config.json`, in Qwen2's terms."""
    time_ids_per_s: Callable[[Config], float | None]
    """Position ids per second of a video; None: one per temporal slice, whatever its duration."""
    ignored_tensors: tuple[str, ...] = (".rotary_emb.inv_freq",)
    """Ends of the names of tensors that some files carry and that follow from `config.json`."""
    trained_tokens: Callable[[Config], int | None] = lambda _: None
    """Tokens up to which prompts have the rotary base that was trained (`processor/dynamic_ntk.py`); None: all have."""
    image_size: Size | None = None
    """The one size of all images, stretched to it; None: sizes follow the image (`processor/geometry.py`)."""
    frames_as_images: int = 0
    """Frames of a video, evenly spaced, that are seen as so many images; 0: videos are seen as such."""
    end_token_ids: tuple[int, ...] | None = None
    """Ids that end an answer; None: those that the checkpoint names."""
    names_chat_format: bool = False
    """Whether a checkpoint's `generation_config.json` says (`chat_format`) if it was trained on conversations."""
    adapter_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Modules of a layer as LoRA adapters name them, and Qwen2's modules that each is; empty: the names are Qwen2's."""
    vocabulary_file: str | None = None
    """A rank list that `tokenizer.json` is made of, where checkpoints come without one."""
