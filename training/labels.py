"""What each token of a media item shows, for the losses that are asked beside the answers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_executor.processor.geometry import Grid
from training.sample import Media
from training.world import COLORS, SHAPES

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
COLOR_LABELS = tuple(COLORS)
SYMBOL_LABELS = (*SHAPES, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"abcdefghijklmnopqrstuvwxyz", *"0123456789")
UNTOLD = -100
_COLOR_NUMBER = {None: UNTOLD} | {color: 1 + number for number, color in enumerate(COLOR_LABELS)}
_SYMBOL_NUMBER = {symbol: 1 + number for number, symbol in enumerate(SYMBOL_LABELS)}
_LEAST_COVERED = 0.12
"""Share of a merged patch that a thing must cover to be what the patch shows…"""
_LEAST_OF_THING = 0.2
"""… or share of the thing, where that is less."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What `M` merged patches show: the thing that covers enough of each; of several, the one that lies over others."""

    names: Ints
    """[2, M]: color (1 + index in `COLOR_LABELS`) and symbol (likewise); 0 where nothing is, `UNTOLD` where nobody
    says."""
    owners: Ints
    """[M]: index of the region that each shows; -1 where nothing is, or nobody says."""
    boxes: Floats
    """[4, M]: from the patch's center to the thing's left, top, right and bottom edges, in merged patches; rightwards
    and downwards positive. 0 where nothing is."""


def token_labels(item: Media, grid: Grid) -> Labels:
    """What each merged patch shows most of; in an item that does not say, nothing is told."""
    if item.regions is None:
        untold = np.full((2, grid.num_tokens), UNTOLD, np.int64)
        return Labels(untold, np.full(grid.num_tokens, -1), np.zeros((4, grid.num_tokens), np.float32))
    merged = (grid.t, grid.h // 2, grid.w // 2)
    names, owners = np.zeros((2, *merged), np.int64), np.full(merged, -1)
    boxes = np.zeros((4, *merged), np.float32)
    most = np.zeros(merged)
    height, width = item.frames[0].shape[:2]
    down, across = merged[1] / height, merged[2] / width  # merged patches a source pixel
    rows, columns = np.arange(merged[1])[:, None], np.arange(merged[2])
    for number, region in enumerate(item.regions):
        left, top, right, bottom = region.left * across, region.top * down, region.right * across, region.bottom * down
        y, x = max(0, int(top)), max(0, int(left))
        at = np.s_[region.slice, y : int(bottom) + 1, x : int(right) + 1]  # the merged patches it touches
        column, row = columns[x : int(right) + 1], rows[y : int(bottom) + 1]
        wide = np.minimum(column + 1, right) - np.maximum(column, left)
        high = np.minimum(row + 1, bottom) - np.maximum(row, top)
        covered = high * wide
        least = min(_LEAST_COVERED, _LEAST_OF_THING * (right - left) * (bottom - top))
        here = covered > np.maximum(most[at], least)
        below, beside = np.nonzero(here)
        below, beside, time = below + y, beside + x, region.slice
        most[time, below, beside] = covered[here]
        owners[time, below, beside] = number
        names[0, time, below, beside] = _COLOR_NUMBER[region.color]
        names[1, time, below, beside] = _SYMBOL_NUMBER.get(region.symbol, UNTOLD)
        boxes[0, time, below, beside] = left - beside - 0.5
        boxes[1, time, below, beside] = top - below - 0.5
        boxes[2, time, below, beside] = right - beside - 0.5
        boxes[3, time, below, beside] = bottom - below - 0.5
    return Labels(names.reshape(2, -1), owners.reshape(-1), boxes.reshape(4, -1))
