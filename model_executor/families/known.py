"""All families, and which of them a checkpoint belongs to: decided by its `config.json`, never by its name."""

import re
from collections.abc import Sequence

from model_executor.families.family import Config, Family
from model_executor.families.qwen2_5_vl import QWEN2_5_VL
from model_executor.families.qwen2_vl import QWEN2_VL
from model_executor.families.qwen_vl import QWEN_VL

FAMILIES = (QWEN_VL, QWEN2_VL, QWEN2_5_VL)


class UnknownFamilyError(Exception):
    """A checkpoint belongs to no family that is served; the text says what it is."""


def family_of(config: Config) -> Family:
    """The family of a checkpoint with this `config.json`.

    Raises:
        UnknownFamilyError: none that is served.
    """
    architectures = config.get("architectures") or []
    family = next((each for each in FAMILIES if each.architecture in architectures), None)
    if family is None:
        raise UnknownFamilyError(_stranger(architectures))
    if not isinstance(config.get(family.vision_section), dict):
        raise UnknownFamilyError(f"this is a text model: its config.json has no {family.vision_section!r}")
    return family


def _stranger(architectures: Sequence[str]) -> str:
    """What a model of another family is: `Qwen3VLForConditionalGeneration` is a Qwen3-VL."""
    if not architectures:
        return "config.json names no architecture"
    name = re.sub(r"(?<=\d)_(?=\d)", ".", architectures[0].partition("For")[0])
    name = name.removesuffix("VL").rstrip("_") + "-VL" if name.endswith("VL") else name
    *others, last = (family.name for family in FAMILIES)
    return f"this is a {name}; Tessera serves {', '.join(others)}{' and ' if others else ''}{last}"
