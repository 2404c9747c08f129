"""Qwen2-VL: the family that everything here began with, so that the shared parts have its shape.

Source: Qwen2-VL report (arXiv 2409.12191) and its release.
"""

from model_executor.families.family import Config, Family
from model_executor.families.qwen2_tensors import qwen2_vl_tensors
from model_executor.processor.chatml import QWEN2_FORMAT


def text_config(config: Config) -> Config:
    """The part of the language model: transformers 5 nests what the release kept at the top."""
    nested: Config = config.get("text_config") or config
    return nested


QWEN2_VL = Family(
    name="Qwen2-VL",
    architecture="Qwen2VLForConditionalGeneration",
    vision_section="vision_config",
    model_class="model_executor.models.qwen2_vl.model:Qwen2VL",
    tensors=qwen2_vl_tensors,
    prompt_format=QWEN2_FORMAT,
    box_unit="thousandth",
    text_config=text_config,
    time_ids_per_s=lambda _: None,
)
