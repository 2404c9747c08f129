"""Qwen-VL's `config.json` for transformers and vLLM, in Qwen2's terms; nothing of the checkpoint's own code is run."""

from types import SimpleNamespace
from typing import Any

from transformers import PretrainedConfig

from model_executor.families.qwen_vl import PLACEHOLDER_ID, text_config


class QwenVLConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """The language model's sizes under Qwen2's names, and the vision tower's as `vision_config`.

    `seq_length` is left out, since vLLM would take it for the longest context.
    """

    model_type = "qwen"

    def __init__(self, **values: Any) -> None:
        visual = dict(values.pop("visual", {}))
        text = dict(text_config(values)) if "hidden_size" in values else {}
        for name in ("seq_length", "intermediate_size", "layer_norm_epsilon"):
            values.pop(name, None)
        self.visual = visual
        self.image_token_id = self.video_token_id = PLACEHOLDER_ID
        super().__init__(**{**values, **text})

    @property
    def vision_config(self) -> SimpleNamespace:
        """The vision tower's sizes."""
        return SimpleNamespace(**self.visual)
