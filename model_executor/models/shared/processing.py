"""vLLM's multimodal processing interface: media limits, memory profiling, and the items that reach the model.

Prompts arrive with placeholders expanded and patches prepared, so vLLM's own processing is bypassed: an item carries
its grid and the name of the file that holds its patches, nothing else.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Never

import torch
from vllm.inputs import MultiModalInput
from vllm.inputs.engine import mm_input
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)
from vllm.multimodal.processing import BaseDummyInputsBuilder, BaseMultiModalProcessor, BaseProcessingInfo

from model_executor.models.shared.tower import FRAME_VALUES
from model_executor.processor.geometry import MAX_VIDEO_TOKENS, MERGE, Grid

MAX_ITEM_TOKENS = MAX_VIDEO_TOKENS
"""Largest image or video in tokens; determines the size of the encoder cache."""

# Fields that are not kept on the CPU are dropped from items in the prefix cache, but positions need every grid.
_FIELD = MultiModalBatchedField(keep_on_cpu=True)


def media_item(path: str, grid: Grid, slice_s: float = 0.0) -> MultiModalKwargsItem:
    """An item as `VisionLanguageModel.embed_multimodal` and `get_mrope_input_positions` read it.

    Args:
        path: file of uint8 rows, readable by the engine's processes until the request has ended.
        grid: of the image or video.
        slice_s: seconds from one temporal slice to the next.
    """
    return MultiModalKwargsItem(
        {
            "grid": MultiModalFieldElem(torch.tensor([grid.t, grid.h, grid.w]), _FIELD),
            "slice_s": MultiModalFieldElem(torch.tensor(slice_s, dtype=torch.float64), _FIELD),
            "path": MultiModalFieldElem(torch.frombuffer(bytearray(path.encode()), dtype=torch.uint8), _FIELD),
        }
    )


def item_path(path: torch.Tensor) -> str:
    """The file name in an item's `path` field."""
    return bytes(path.tolist()).decode()


def item_grid(grid: torch.Tensor) -> Grid:
    """The grid in an item's `grid` field."""
    return Grid(*grid.tolist())


def map_patches(path: str, grid: Grid) -> torch.Tensor:
    """The patches of an item, uint8 [P, 588 or 1176], over the file's own pages."""
    rows = torch.from_file(path, shared=False, size=Path(path).stat().st_size, dtype=torch.uint8)
    return rows.view(grid.num_patches, -1)


class ProcessingInfo(BaseProcessingInfo):
    """Limits per modality."""

    grid: Grid | None = None
    """Of all images, where they have one size."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Any number of images and videos."""
        return {"image": None, "video": None}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """The largest item that is accepted; no larger than the context."""
        return {modality: min(MAX_ITEM_TOKENS, seq_len) for modality in mm_counts}


class FixedSizeInfo(ProcessingInfo):
    """Limits of a family whose images have one size, and which has no videos."""

    grid = Grid(1, 32, 32)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Any number of images."""
        return {"image": None}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """What every image takes."""
        return dict.fromkeys(mm_counts, self.grid.num_tokens)


class DummyInputs(BaseDummyInputsBuilder[ProcessingInfo]):
    """Required by vLLM and never used, since `Processor.get_dummy_mm_inputs` does not need it."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> Never:
        """Never called."""
        raise _bypassed()

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Any) -> Never:
        """Never called."""
        raise _bypassed()


class Processor(BaseMultiModalProcessor[ProcessingInfo]):
    """Provides a largest item for vLLM's memory profiling; processes nothing, since prompts arrive prepared."""

    requires_tokenizer = False

    def get_dummy_mm_inputs(
        self, mm_counts: Mapping[str, int], *, cache: Any = None, scheduler_config: Any = None
    ) -> MultiModalInput:
        """One black item of the largest size per modality."""
        limits = self.info.get_mm_max_tokens_per_item(self.info.ctx.model_config.max_model_len, mm_counts)
        token_ids: list[int] = []
        items, ranges = {}, {}
        for modality, num_tokens in limits.items():
            grid = self.info.grid or Grid(1, MERGE, MERGE * num_tokens)
            items[modality] = [media_item(_black(grid), grid)]
            ranges[modality] = [PlaceholderRange(offset=len(token_ids), length=num_tokens)]
            token_ids += [0] * num_tokens
        hashes = {modality: [f"dummy-{modality}"] for modality in limits}
        return mm_input(token_ids, MultiModalKwargsItems(items), hashes, ranges)

    def _get_mm_fields_config(self, *_: Any) -> Never:
        raise _bypassed()

    def _get_prompt_updates(self, *_: Any) -> Never:
        raise _bypassed()

    def apply(self, *_: Any, **__: Any) -> Never:
        """Never called."""
        raise _bypassed()


def _black(grid: Grid) -> str:
    """Path of an anonymous file of zeros that exists as long as this process."""
    file = os.memfd_create("black-patches")
    os.truncate(file, grid.num_patches * FRAME_VALUES)
    return f"/proc/{os.getpid()}/fd/{file}"


def _bypassed() -> NotImplementedError:
    return NotImplementedError("media are prepared before they reach the engine")
