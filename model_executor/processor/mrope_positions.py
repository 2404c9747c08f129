"""M-RoPE position ids of a prompt: one row each for time, height and width.

Text counts up alike on all three axes, which makes M-RoPE plain 1-D RoPE there. A picture keeps one time while height
and width run over its merged grid; a clip's time rises by one per temporal slice. What follows a medium starts one
above the largest id the medium used on any axis.

Source: Qwen2-VL report (arXiv 2409.12191) section 2.1. transformers 5.19 advances by max(h, w) only, which differs
for a clip whose t is larger.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_executor.processor.geometry import MERGE, Grid


@dataclass(frozen=True, slots=True)
class MediaSpan:
    """A run of placeholders: `grid.num_tokens` of them from index `offset`."""

    offset: int
    grid: Grid


def mrope_positions(num_tokens: int, media: Sequence[MediaSpan]) -> tuple[npt.NDArray[np.int64], int]:
    """Positions of every token of a prompt.

    Args:
        num_tokens: length of the prompt (`T`), placeholders included.
        media: spans in order of `offset`, not overlapping.

    Returns:
        int64 [3, T] (time, height, width), and the delta: what is added to a later token's index to get its position.

    Raises:
        ValueError: spans out of order or beyond the prompt; a fault of the caller.
    """
    positions = np.empty((3, num_tokens), np.int64)
    done, following = 0, 0  # tokens written; the position the next token starts at
    for span in media:
        end = span.offset + span.grid.num_tokens
        if span.offset < done or end > num_tokens:
            raise ValueError(f"media span {span.offset}..{end} does not fit after {done} in {num_tokens} tokens")
        text = span.offset - done
        positions[:, done : span.offset] = np.arange(following, following + text)
        merged = np.indices((span.grid.t, span.grid.h // MERGE, span.grid.w // MERGE)).reshape(3, -1)
        positions[:, span.offset : end] = merged + (following + text)
        following += text + 1 + int(merged.max())
        done = end
    positions[:, done:] = np.arange(following, following + num_tokens - done)
    return positions, following - done
