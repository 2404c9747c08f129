"""A batch of fixed shape, in one block of memory: what the model reads, whatever was drawn.

Tokens of several samples lie side by side in bins of one length, patches in windows of one length; who may see whom is
said by numbers. So every batch of a stage has the same shapes, which lets a GPU replay a step it has recorded, and a
batch crosses from the process that draws it to the device in one copy.
"""

from dataclasses import dataclass, fields
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.encode import ROW_BYTES
from training.labels import UNTOLD
from training.recipe import Capacity

_ALIGNMENT = 64
Block = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Batch:
    """`B` bins of `L` tokens, `W` windows of `V` patches, `M` = W * V / 4 merged patches, `A` answer tokens.

    What is left over of any of them is padding: it has a number that nothing else has, or weighs nothing.
    """

    rows: Tensor
    """uint8 [W * V, 1176]"""
    patch_positions: Tensor
    """int32 [2, W * V]: row and column of each patch in its slice."""
    patch_slices: Tensor
    """int32 [W, V]: number of the temporal slice; patches of one see one another."""
    visible: Tensor
    """float32 [M]: 1 for merged patches, 0 for padding."""
    names: Tensor
    """int64 [2, M] (`Labels.names`)"""
    owned: Tensor
    """float32 [M]: 1 where a thing is."""
    boxes: Tensor
    """float32 [4, M] (`Labels.boxes`)"""
    places: Tensor
    """int64 [3, M]: slice, row and column of each merged patch."""
    placeholders: Tensor
    """int64 [M]: index in the B * L tokens of each merged patch."""
    token_ids: Tensor
    """int64 [B, L]"""
    positions: Tensor
    """int32 [3, B, L]: time, height, width."""
    samples: Tensor
    """int32 [B, L]: number of the sample within the bin."""
    branches: Tensor
    """int32 [B, L]: 0 for what a sample's exchanges have in common, then the exchange."""
    sources: Tensor
    """int64 [B * L]: merged patch that stands at a placeholder; anything elsewhere."""
    media: Tensor
    """int32 [B, L]: number of the media item within the bin, from 1; 0 for text."""
    owners: Tensor
    """int32 [B, L]: number of the region within the bin that a placeholder shows, from 1; 0 for none."""
    ends: Tensor
    """int64 [K]: index in the tokens of the one that ends each media item."""
    sizes: Tensor
    """int64 [2, K]: rows and columns of merged patches of each media item."""
    answer_index: Tensor
    """int64 [A]: index of the token that predicts each answer token."""
    answer_ids: Tensor
    """int64 [A]"""
    answer_weights: Tensor
    """float32 [A]; sum 1."""
    queries: Tensor
    """int64 [B, Q]: index in its bin of each token that is about to tell of something."""
    query_media: Tensor
    """int32 [B, Q]: the media item it is in, as `media`; -1 for padding."""
    query_owners: Tensor
    """int32 [B, Q]: the region it is, as `owners`; -1 for padding."""
    query_weights: Tensor
    """float32 [B, Q]: 1, or 0 for padding."""
    query_shares: Tensor
    """float32 [B, Q, 4]: its edges, as shares of the frame's width and height."""

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Field:
    """Where one of a batch's arrays lies in its block."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    padding: int


def layout(size: Capacity) -> tuple[dict[str, Field], int]:
    """The fields of a batch of that size, and the bytes of its block."""
    tokens, patches, merged = size.bins * size.bin_tokens, size.num_patches, size.num_patches // 4
    bins, queries = (size.bins, size.bin_tokens), (size.bins, size.bin_queries)
    shapes: dict[str, tuple[str, tuple[int, ...], int]] = {
        "rows": ("u1", (patches, ROW_BYTES), 0),
        "patch_positions": ("i4", (2, patches), 0),
        "patch_slices": ("i4", (size.windows, size.window_patches), 0),
        "visible": ("f4", (merged,), 0),
        "names": ("i8", (2, merged), UNTOLD),
        "owned": ("f4", (merged,), 0),
        "boxes": ("f4", (4, merged), 0),
        "places": ("i8", (3, merged), 0),
        "placeholders": ("i8", (merged,), 0),
        "token_ids": ("i8", bins, 0),
        "positions": ("i4", (3, *bins), 0),
        "samples": ("i4", bins, 0),
        "branches": ("i4", bins, 0),
        "sources": ("i8", (tokens,), 0),
        "media": ("i4", bins, 0),
        "owners": ("i4", bins, 0),
        "ends": ("i8", (size.media,), 0),
        "sizes": ("i8", (2, size.media), UNTOLD),
        "answer_index": ("i8", (size.answers,), 0),
        "answer_ids": ("i8", (size.answers,), 0),
        "answer_weights": ("f4", (size.answers,), 0),
        "queries": ("i8", queries, 0),
        "query_media": ("i4", queries, -1),
        "query_owners": ("i4", queries, -1),
        "query_weights": ("f4", queries, 0),
        "query_shares": ("f4", (*queries, 4), 0),
    }
    found, offset = {}, 0
    for name, (kind, shape, padding) in shapes.items():
        dtype = np.dtype(kind)
        found[name] = Field(dtype, shape, offset, padding)
        offset += -(-prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
    return found, offset


def arrays(block: Block, size: Capacity) -> dict[str, npt.NDArray]:  # type: ignore[type-arg]
    """The block's fields, to be written."""
    return {
        name: block[f.offset : f.offset + prod(f.shape) * f.dtype.itemsize].view(f.dtype).reshape(f.shape)
        for name, f in layout(size)[0].items()
    }


def view(block: Tensor, size: Capacity) -> Batch:
    """The block (uint8, on any device) as a batch; nothing is copied."""
    places = layout(size)[0]
    found = {}
    for name in (field.name for field in fields(Batch)):
        place = places[name]
        kind = getattr(torch, place.dtype.name)
        part = block[place.offset : place.offset + prod(place.shape) * place.dtype.itemsize]
        found[name] = part.view(kind).view(place.shape)
    return Batch(**found)
