"""Cuts pixels into patch rows: numpy only, one strided copy per channel into the buffer that the engine reads. Pure.

Rows are ordered (t, h/2, w/2, 2, 2): the four patches of one token are adjacent. A row is (C, D, 14, 14) with D = 1
frame for an image (the engine folds its duplicate frame into the weights) and D = 2 for a video.

Twin that must agree: `model_executor/processor/geometry.py` (grids), `model_executor/models/shared/tower.py` (the
patch embedding). Source: Qwen2-VL report (arXiv 2409.12191) section 2.1.
"""

import numpy as np
from numpy.typing import NDArray

from model_executor.processor.geometry import CHANNELS, MERGE, PATCH_PX, TEMPORAL_PATCH_FRAMES, Grid

Pixels = NDArray[np.uint8]
"""uint8 [height, width, 3], RGB, 0..255. Fastest if each channel is contiguous in memory."""
Rows = NDArray[np.uint8]
"""uint8 [P, 3 * D * 14 * 14]."""

_PATCH_LINE = np.dtype((np.void, PATCH_PX))


def row_bytes(num_depth_frames: int) -> int:
    """Bytes of one row; `num_depth_frames` is D: 1 for an image, 2 for a video."""
    return CHANNELS * num_depth_frames * PATCH_PX * PATCH_PX


def write_image(rows: Rows, grid: Grid, pixels: Pixels) -> None:
    """Fill the rows of an image.

    Args:
        rows: uint8 [h * w, 588], written.
        grid: `t` is 1.
        pixels: uint8 [14 * h, 14 * w, 3].
    """
    _write(rows, grid, 0, 0, 1, pixels)


def write_video_frame(rows: Rows, grid: Grid, index: int, pixels: Pixels) -> None:
    """Fill one frame's half of the rows of its temporal slice.

    Args:
        rows: uint8 [t * h * w, 1176], written.
        grid: of the whole video.
        index: of the frame, 0 to 2 * t - 1.
        pixels: uint8 [14 * h, 14 * w, 3].
    """
    t, depth = divmod(index, TEMPORAL_PATCH_FRAMES)
    _write(rows, grid, t, depth, TEMPORAL_PATCH_FRAMES, pixels)


def _write(rows: Rows, grid: Grid, t: int, depth: int, num_depth_frames: int, pixels: Pixels) -> None:
    planes = np.moveaxis(pixels, -1, 0)
    if planes.strides[-1] != 1:
        planes = np.ascontiguousarray(planes)
    # Each line of a patch is copied as one item of 14 bytes.
    high, wide = grid.h // MERGE, grid.w // MERGE
    target = rows.view(_PATCH_LINE).reshape(grid.t, high, wide, MERGE, MERGE, CHANNELS, num_depth_frames, PATCH_PX)
    source = planes.view(_PATCH_LINE).reshape(CHANNELS, high, MERGE, PATCH_PX, wide, MERGE)
    for channel in range(CHANNELS):
        target[t, :, :, :, :, channel, depth] = source[channel].transpose(0, 3, 1, 4, 2)
