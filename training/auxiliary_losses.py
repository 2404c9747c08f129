"""Losses that help a small model to learn to look, asked beside its answers and thrown away afterwards.

Each asks for something that every answer needs and that answers alone teach slowly: what a token shows (`SymbolLoss`),
where it lies (`PositionLoss`), what is about to be told of (`pointing_loss`), and where that has its edges (`BoxLoss`).
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.batch import Batch
from training.labels import COLOR_LABELS, SYMBOL_LABELS, UNTOLD
from training.model import Block, Language, rotate
from training.recipe import Shape

MAX_PLACE = 24
"""Rows, columns and slices that `PositionLoss` tells apart; the last stands for all beyond."""
POSITION_LAYERS = 2
"""Layers of the language model after which `PositionLoss` looks."""
POINTING_LAYER = 3
"""Layer of the language model, counted from 0, whose first heads learn to point."""
POINTING_HEADS = 2
BOX_LAYERS = 5
"""Layers of the language model after which `BoxLoss` looks at what is about to be told."""
_SHARES = 10
"""What a share of an image is multiplied by, to weigh like an edge in merged patches."""
_EDGE_BETA = 0.1
"""Merged patches: below it the loss of an edge is quadratic."""
_EMPTY_WEIGHT = 0.2
"""What an empty token counts, against one with something in it."""


class SymbolLoss(nn.Module):
    """Names the color and the symbol that each token of the vision tower shows, and tells how far the edges are.

    Warms the tower up and is thrown away.
    """

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.color = nn.Linear(shape.hidden_size, 1 + len(COLOR_LABELS))
        self.symbol = nn.Linear(shape.hidden_size, 1 + len(SYMBOL_LABELS))
        self.box = nn.Linear(shape.hidden_size, 4)

    def forward(self, batch: Batch, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of naming `seen` [M, hidden size], and the share of things whose symbol is named rightly."""
        colors, symbols = batch.names
        named = self.symbol(seen).float()
        loss = _naming(self.color(seen).float(), colors) + _naming(named, symbols)
        things = batch.owned
        edges = F.smooth_l1_loss(self.box(seen).float(), batch.boxes.T, beta=_EDGE_BETA, reduction="none").mean(1)
        right = _mean((named.argmax(-1) == symbols).float(), (symbols > 0).float())
        return loss + _mean(edges, things), right


def _naming(logits: Tensor, labels: Tensor) -> Tensor:
    weights = torch.where(labels > 0, 1.0, torch.where(labels == 0, _EMPTY_WEIGHT, 0.0))
    return _mean(F.cross_entropy(logits, labels, ignore_index=UNTOLD, reduction="none"), weights)


class PositionLoss(nn.Module):
    """Tells slice, row and column of each token, and rows and columns of each item from the token that ends it.

    It looks at an early layer of the language model, and is thrown away afterwards. Nothing but M-RoPE says where a
    token lies: on an even background the vision tower, whose rotary positions are relative, gives every token the
    same. A language model that has to find this out from answers alone takes long.
    """

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.axes = nn.ModuleList(nn.Linear(shape.hidden_size, MAX_PLACE) for _ in range(3))
        self.sides = nn.ModuleList(nn.Linear(shape.hidden_size, MAX_PLACE + 1) for _ in range(2))

    def forward(self, batch: Batch, made: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Loss of placing by what the layers `made` (`Model.answer`), and the share of tokens placed rightly."""
        early = made[POSITION_LAYERS].flatten(0, 1)
        tokens = early.index_select(0, batch.placeholders)
        places = batch.places.clamp(max=MAX_PLACE - 1)
        guesses = [axis(tokens).float() for axis in self.axes]
        loss = torch.stack(
            [
                _mean(F.cross_entropy(guess, place, reduction="none"), batch.visible)
                for guess, place in zip(guesses, places, strict=True)
            ]
        ).sum()
        ends = early.index_select(0, batch.ends)
        known = (batch.sizes[0] != UNTOLD).float()
        for side, size in zip(self.sides, batch.sizes.clamp(max=MAX_PLACE), strict=True):
            losses = F.cross_entropy(side(ends).float(), size, ignore_index=UNTOLD, reduction="none")
            loss = loss + _mean(losses, known)
        right = (guesses[1].argmax(-1) == places[1]) & (guesses[2].argmax(-1) == places[2])
        return loss, _mean(right.float(), batch.visible)


class BoxLoss(nn.Module):
    """Tells where the edges of things are: from the tokens that show them, and from those that are about to tell.

    A token of an image knows its place and how far the edges are from it, but not how large the image is; so it is
    asked for edges in merged patches from the image's top left corner. Where a thing is about to be told, it is asked
    for in shares of the image's width and height, as grounding answers give it. Thrown away afterwards.
    """

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.edges = nn.Linear(shape.hidden_size, 4)
        self.shares = nn.Linear(shape.hidden_size, 4)
        # What the heads look at is large: from noise, their first losses would drown all others.
        for head in (self.edges, self.shares):
            nn.init.zeros_(head.weight)

    def forward(self, batch: Batch, made: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Loss of telling edges by what the layers `made` (`Model.answer`), and the mean error of a share in [0, 1]."""
        _, rows, columns = batch.places
        centers = torch.stack([columns, rows, columns, rows]).float() + 0.5
        edges = (centers + batch.boxes).T  # [M, 4]: left, top, right, bottom
        tokens = made[POINTING_LAYER].flatten(0, 1).index_select(0, batch.placeholders)
        errors = F.smooth_l1_loss(self.edges(tokens).float(), edges, beta=_EDGE_BETA, reduction="none").mean(1)
        loss = _mean(errors, batch.owned)
        told = self.shares(at_queries(made[BOX_LAYERS], batch)).float()
        shares = batch.query_shares
        errors = F.smooth_l1_loss(told * _SHARES, shares * _SHARES, beta=_EDGE_BETA, reduction="none").mean(2)
        return loss + _mean(errors, batch.query_weights), _mean((told - shares).abs().mean(2), batch.query_weights)


def at_queries(rows: Tensor, batch: Batch) -> Tensor:
    """Of rows [B, L, D] those [B, Q, D] that are about to tell of something."""
    return rows.gather(1, batch.queries[..., None].expand(-1, -1, rows.shape[2]))


def pointing_loss(language: Language, batch: Batch, made: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Loss of pointing, from each token that is about to tell of something, at the tokens that show it.

    It is asked of the first attention heads of a middle layer. To find what a question or the next phrase is about is
    what all answers have in common, and what a model this small is slowest to learn from answers alone. The loss is
    minus the logarithm of the attention that falls on what is to be shown, of all that falls on its media item.

    Args:
        language: the language model.
        batch: with something to point at.
        made: what its layers made of the batch (`Model.answer`).

    Returns:
        The loss, and the share of pointers that hit.
    """
    layer = cast(Block, language.layers[POINTING_LAYER])
    attention, dim = layer.self_attn, layer.self_attn.dim
    entering = layer.input_layernorm(made[POINTING_LAYER])
    angles = language.angles(batch.positions)
    at = at_queries(angles, batch)
    query = attention.q_proj(at_queries(entering, batch)).unflatten(2, (-1, dim))[:, :, :POINTING_HEADS].float()
    query = rotate(query, at.cos()[:, :, None], at.sin()[:, :, None])
    key = rotate(
        attention.k_proj(entering)[..., None, :dim].float(), angles.cos()[:, :, None], angles.sin()[:, :, None]
    )
    scores = torch.einsum("bqhd,bld->bhql", query, key[:, :, 0]).float() * dim**-0.5
    among = batch.media[:, None, :] == batch.query_media[..., None]
    shown = (batch.owners[:, None, :] == batch.query_owners[..., None]) & among
    chances = scores.masked_fill(~among[:, None], -1e9).log_softmax(-1)
    losses = -chances.masked_fill(~shown[:, None], -1e9).logsumexp(-1).mean(1)
    best = chances[:, 0].argmax(-1, keepdim=True)
    hits = shown.gather(2, best)[..., 0].float()
    return _mean(losses.clamp(max=50), batch.query_weights), _mean(hits, batch.query_weights)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean; 0 where nothing weighs."""
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)
