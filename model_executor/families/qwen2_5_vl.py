"""Qwen2.5-VL: Qwen2-VL with windows in the vision tower, seconds in the positions, and boxes in pixels.

Source: Qwen2.5-VL report (arXiv 2502.13923) and its release.
"""

from model_executor.families.family import Config, Family
from model_executor.families.qwen2_tensors import qwen2_5_vl_tensors
from model_executor.families.qwen2_vl import text_config
from model_executor.processor.chatml import QWEN2_FORMAT


def _time_ids_per_s(config: Config) -> float:
    """The release says 2: one id for half a second, two for a temporal slice at two frames a second."""
    return float(config["vision_config"].get("tokens_per_second", 2))


QWEN2_5_VL = Family(
    name="Qwen2.5-VL",
    architecture="Qwen2_5_VLForConditionalGeneration",
    vision_section="vision_config",
    model_class="model_executor.models.qwen2_5_vl.model:Qwen25VL",
    tensors=qwen2_5_vl_tensors,
    prompt_format=QWEN2_FORMAT,
    box_unit="pixel",
    text_config=text_config,
    time_ids_per_s=_time_ids_per_s,
)
