"""The Qwen-VL model class that vLLM runs."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFeatureSpec

from model_executor.families.qwen_vl import QWEN_VL
from model_executor.models.qwen_vl.rotary import GrowingRotary
from model_executor.models.qwen_vl.vision import ResampledTower
from model_executor.models.shared.model import VisionLanguageModel
from model_executor.models.shared.processing import DummyInputs, FixedSizeInfo, Processor
from model_executor.processor.dynamic_ntk import num_raises

_NAMES = {
    "ln_1": "input_layernorm",
    "ln_2": "post_attention_layernorm",
    "attn.c_attn": "self_attn.qkv_proj",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.w2": "mlp.gate_proj",  # the one that passes through SiLU
    "mlp.w1": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
}
"""Modules of a layer, by their names in a checkpoint."""
_TOP = {"transformer.wte.": "model.embed_tokens.", "transformer.ln_f.": "model.norm.", "transformer.visual.": "visual."}


@MULTIMODAL_REGISTRY.register_processor(Processor, info=FixedSizeInfo, dummy_inputs=DummyInputs)
class QwenVL(VisionLanguageModel):
    """Qwen-VL and Qwen-VL-Chat: Qwen2's decoder layers under other names, with a rotary embedding of their own."""

    tower = ResampledTower

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        """As `VisionLanguageModel`."""
        quantization = vllm_config.quant_config
        if getattr(quantization, "modules_in_block_to_quantize", None):
            # vLLM has read the quantized modules off the checkpoint, which calls them by other names.
            quantization.modules_in_block_to_quantize = [*chain.from_iterable(QWEN_VL.adapter_names.values())]
        super().__init__(vllm_config=vllm_config, prefix=prefix)

    def make_rotary(self, text: Any, max_model_len: int) -> nn.Module:
        """As `VisionLanguageModel.make_rotary`."""
        self.trained_tokens, self.max_model_len = text.trained_tokens, max_model_len
        return GrowingRotary(text, max_model_len)

    def get_mrope_input_positions(
        self, input_tokens: list[int], mm_features: list[MultiModalFeatureSpec]
    ) -> tuple[torch.Tensor, int]:
        """Positions int64 [3, T] of a prompt, in the block of its base, and the block's beginning."""
        block = num_raises(len(input_tokens), self.trained_tokens) * self.max_model_len
        return (torch.arange(len(input_tokens)) + block).expand(3, -1).clone(), block

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load a checkpoint; names become Qwen2's.

        Raises:
            ValueError: a bias, other than zeros, where the model has none (conversions to GPTQ write zeros).
        """
        return super().load_weights(renamed(weights))


def renamed(weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """A checkpoint's weights under the names of Qwen2's modules, without tensors that say nothing.

    Raises:
        ValueError: as `QwenVL.load_weights`.
    """
    for name, weight in weights:
        if name.endswith(QWEN_VL.ignored_tensors):
            continue
        layer = name.removeprefix("transformer.h.")
        if layer == name:
            old = next((prefix for prefix in _TOP if name.startswith(prefix)), "")
            yield _TOP.get(old, "") + name.removeprefix(old), weight
            continue
        number, _, rest = layer.partition(".")
        module, _, kind = rest.rpartition(".")
        if kind == "bias" and module != "attn.c_attn":
            if weight.any():
                raise ValueError(f"{name} is not zero, and the model has no bias there")
            continue
        yield f"model.layers.{number}.{_NAMES[module]}.{kind}", weight
