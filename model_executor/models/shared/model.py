"""The model around a family's vision tower: language model, head, weight names, and positions.

Attribute names equal the names of the released checkpoints (`visual.*`, `model.*`, `lm_head.*`); those that
transformers 5 writes are mapped to them.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.distributed import get_pp_group
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.interfaces import SupportsLoRA, SupportsMRoPE, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.qwen2 import Qwen2Model
from vllm.model_executor.models.utils import AutoWeightsLoader, PPMissingLayer, WeightsMapper, maybe_prefix
from vllm.multimodal.inputs import MultiModalFeatureSpec
from vllm.sequence import IntermediateTensors

from model_executor.checkpoint.config import read_checkpoint
from model_executor.cpu import on_cpu
from model_executor.models.shared.cpu_text import CpuTextDecoderLayer
from model_executor.models.shared.processing import (
    item_grid,
    item_path,
    map_patches,
)
from model_executor.models.shared.text import TextDecoderLayer, TextRotary
from model_executor.models.shared.tower import PixelStatistics, Tower
from model_executor.processor.mrope_positions import MediaSpan, mrope_positions, num_positions


class VisionLanguageModel(nn.Module, SupportsMultiModal, SupportsMRoPE, SupportsPP, SupportsLoRA):
    """The model vLLM runs; a family's class says which tower it has."""

    tower: Callable[[Any, PixelStatistics, QuantizationConfig | None, str], Tower]

    # Without a dot at the end: lists of modules that are not quantized name whole parts, such as `model.visual`.
    hf_to_vllm_mapper = WeightsMapper(orig_to_new_prefix={"model.visual": "visual", "model.language_model": "model"})
    packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        """Build the model without weights.

        Raises:
            ValueError: a number format or a variant that would give wrong answers.
        """
        super().__init__()
        model_config = vllm_config.model_config
        if model_config.dtype == torch.float16:
            raise ValueError("this family overflows in float16; use bfloat16 or float32")
        config, text = model_config.hf_config, model_config.hf_config.get_text_config()
        text.tie_word_embeddings = config.tie_word_embeddings  # the outer value is the checkpoint's
        checkpoint = read_checkpoint(Path(model_config.model))
        self.time_ids_per_s = checkpoint.time_ids_per_s
        statistics = PixelStatistics(checkpoint.image_mean, checkpoint.image_std)
        self.yarn = checkpoint.yarn
        rotary = self.make_rotary(text, model_config.max_model_len)
        self.config = config  # vLLM reads it when it adds adapters
        self.encoded_paths: set[str] = set()  # read and emptied by worker.EncodedMedia
        self.visual = self.tower(
            config.vision_config, statistics, vllm_config.quant_config, maybe_prefix(prefix, "visual")
        )
        layer = CpuTextDecoderLayer if on_cpu() and model_config.enforce_eager else TextDecoderLayer
        self.model = Qwen2Model(
            vllm_config=vllm_config,
            prefix=maybe_prefix(prefix, "model"),
            decoder_layer_type=partial(layer, rotary),
        )
        self.lm_head = self._head(vllm_config, maybe_prefix(prefix, "lm_head"))
        self.logits_processor = LogitsProcessor(text.vocab_size)
        self.make_empty_intermediate_tensors = self.model.make_empty_intermediate_tensors

    def make_rotary(self, text: Any, max_model_len: int) -> nn.Module:
        """The rotary embedding that all layers share.

        Args:
            text: the text config.
            max_model_len: context length in tokens.
        """
        return TextRotary(text, num_positions(max_model_len, self.time_ids_per_s), self.yarn)

    def _head(self, vllm_config: VllmConfig, prefix: str) -> nn.Module:
        if not get_pp_group().is_last_rank:
            return PPMissingLayer()
        text = self.model.config
        head = ParallelLMHead(text.vocab_size, text.hidden_size, quant_config=vllm_config.quant_config, prefix=prefix)
        return head.tie_weights(self.model.embed_tokens) if text.tie_word_embeddings else head

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **_: object,
    ) -> torch.Tensor | IntermediateTensors:
        """Hidden states [T, hidden] of this step's tokens; positions int64 [3, T]."""
        return self.model(input_ids, positions, intermediate_tensors, inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """Logits [T, vocabulary] on the first tensor-parallel rank, None on others."""
        return self.logits_processor(self.lm_head, hidden_states)

    def embed_multimodal(
        self, *, grid: Iterable[torch.Tensor], path: Iterable[torch.Tensor], **_: object
    ) -> list[torch.Tensor]:
        """Embeddings [M, hidden] of each item; fields as `processing.media_item` writes them."""
        paths, grids = [item_path(field) for field in path], [item_grid(field) for field in grid]
        self.encoded_paths.update(paths)
        rows = [self._on_device(map_patches(*item)) for item in zip(paths, grids, strict=True)]
        return self.visual(rows, grids)

    def _on_device(self, rows: torch.Tensor) -> torch.Tensor:
        """Patches where the tower is. From pinned memory the device fetches them while earlier ones are computed."""
        device = self.visual.device
        return rows if device.type == "cpu" else rows.pin_memory().to(device, non_blocking=True)

    def get_mrope_input_positions(
        self, input_tokens: list[int], mm_features: list[MultiModalFeatureSpec]
    ) -> tuple[torch.Tensor, int]:
        """Positions int64 [3, T] of a prompt, and the delta from a later token's index to its position."""
        spans = [
            MediaSpan(f.mm_position.offset, item_grid(f.data["grid"].data), float(f.data["slice_s"].data))
            for f in mm_features
        ]
        ordered = sorted(spans, key=lambda span: span.offset)
        positions, delta = mrope_positions(len(input_tokens), ordered, self.time_ids_per_s)
        return torch.from_numpy(positions), delta

    def get_language_model(self) -> nn.Module:
        """The decoder stack."""
        return self.model

    def get_mm_mapping(self) -> MultiModelKeys:
        """The prefixes of language model, connector and tower; vLLM applies LoRA to the language model only."""
        return MultiModelKeys.from_string_field(
            language_model="model", connector="visual.merger.", tower_model="visual."
        )

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load a checkpoint of either generation of names; a tied head in the file is skipped."""
        return AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)
