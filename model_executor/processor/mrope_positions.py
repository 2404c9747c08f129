"""M-RoPE position ids of a prompt: one row each for time, height and width.

Text counts up equally on all three axes, where M-RoPE equals 1-D RoPE. An image has one time id while height and width
run over its merged grid. A video's time id rises by one per temporal slice (Qwen2-VL), or so many a second, whatever
rate its frames were sampled at (Qwen2.5-VL). The token after an image or video starts one above its largest id on any
axis.

Source: Qwen2-VL report (arXiv 2409.12191) section 2.1; Qwen2.5-VL report (arXiv 2502.13923) section 2.1.2.
transformers 5.19 advances by max(h, w) only, which differs for a video whose t is larger.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_executor.processor.geometry import MERGE, Grid

MAX_VIDEO_S = 8 * 3600
"""Seconds of video in one request for which there are position ids where they count seconds."""


@dataclass(frozen=True, slots=True)
class MediaSpan:
    """A run of placeholders: `grid.num_tokens` of them from index `offset`."""

    offset: int
    grid: Grid
    slice_s: float = 0.0
    """Seconds from one temporal slice to the next; of no meaning for an image."""


def mrope_positions(
    num_tokens: int, media: Sequence[MediaSpan], time_ids_per_s: float | None = None
) -> tuple[npt.NDArray[np.int64], int]:
    """Positions of every token of a prompt.

    Args:
        num_tokens: length of the prompt (`T`), placeholders included.
        media: spans in order of `offset`, not overlapping.
        time_ids_per_s: position ids per second of a video; None: one per temporal slice.

    Returns:
        int64 [3, T] (time, height, width), and the delta that is added to a later token's index to get its position.

    Raises:
        ValueError: spans out of order or beyond the prompt; the caller's fault.
    """
    positions = np.empty((3, num_tokens), np.int64)
    index, position = 0, 0  # of the next token
    for span in media:
        end = span.offset + span.grid.num_tokens
        if span.offset < index or end > num_tokens:
            raise ValueError(f"media span {span.offset}..{end} does not fit after {index} in {num_tokens} tokens")
        num_text_tokens = span.offset - index
        positions[:, index : span.offset] = np.arange(position, position + num_text_tokens)
        merged = np.indices((span.grid.t, span.grid.h // MERGE, span.grid.w // MERGE)).reshape(3, -1)
        if time_ids_per_s is not None:
            # In float32, as the model was trained: where a product is next to a whole number, rounding decides.
            merged[0] = merged[0].astype(np.float32) * np.float32(np.float32(span.slice_s) * time_ids_per_s)
        positions[:, span.offset : end] = merged + (position + num_text_tokens)
        position += num_text_tokens + 1 + int(merged.max())
        index = end
    positions[:, index:] = np.arange(position, position + num_tokens - index)
    return positions, position - index


def num_positions(max_model_len: int, time_ids_per_s: float | None) -> int:
    """How many positions there are: those of a request of `max_model_len` tokens and `MAX_VIDEO_S` of video.

    Only ids that count seconds can outrun the tokens.
    """
    return max_model_len + int(MAX_VIDEO_S * (time_ids_per_s or 0))
