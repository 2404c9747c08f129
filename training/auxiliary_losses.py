"""Losses that help a small model to learn to look, asked beside its answers and thrown away afterwards.

Each asks for something that every answer needs and that answers alone teach slowly: what a token shows (`Naming`),
where it lies (`Placing`), what is about to be told of (`point`), and where that has its edges (`Boxing`).
"""

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.batch import COLOR_LABELS, SYMBOL_LABELS, UNTOLD, Batch
from training.model import Block, Language, rotate
from training.recipe import Shape

MAX_PLACE = 12
"""Rows, columns and slices that `Placing` tells apart; the last stands for all beyond."""
PLACING_LAYERS = 2
"""Layers of the language model after which `Placing` looks."""
POINTING_LAYER = 3
"""Layer of the language model, counted from 0, whose first heads learn to point."""
POINTING_HEADS = 2
BOXING_LAYERS = 5
"""Layers of the language model after which `Boxing` looks at what is about to be told."""
_SHARES = 10
"""What a share of a picture is multiplied by, to weigh like an edge in merged patches."""
_EDGE_BETA = 0.1
"""Merged patches: below it the loss of an edge is quadratic."""


class Naming(nn.Module):
    """Names the colour and the symbol that each token of the vision tower shows, and tells how far the edges are.

    Warms the tower up and is thrown away.
    """

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.color = nn.Linear(shape.hidden_size, 1 + len(COLOR_LABELS))
        self.symbol = nn.Linear(shape.hidden_size, 1 + len(SYMBOL_LABELS))
        self.box = nn.Linear(shape.hidden_size, 4)

    def forward(self, batch: Batch, seen: Tensor) -> tuple[Tensor, float]:
        """Loss of naming `seen` [M, hidden size], and the share of things whose symbol is named rightly."""
        colors, symbols = torch.from_numpy(batch.labels.names)
        named = self.symbol(seen)
        losses = [
            F.cross_entropy(logits, labels, weight=_mostly_things(logits), ignore_index=UNTOLD)
            for logits, labels in ((self.color(seen), colors), (named, symbols))
            if (labels != UNTOLD).any()
        ]
        things = symbols > 0
        if not things.any():
            return torch.stack([*losses, seen.sum() * 0]).sum(), 0.0
        edges = torch.from_numpy(batch.labels.boxes)[:, things].T
        losses.append(F.smooth_l1_loss(self.box(seen[things]), edges, beta=_EDGE_BETA))
        right = (named.argmax(-1)[things] == symbols[things]).float().mean().item()
        return torch.stack(losses).sum(), right


class Placing(nn.Module):
    """Tells slice, row and column of each token, and rows and columns of each medium from the token that ends it.

    It looks at an early layer of the language model, and is thrown away afterwards. Nothing but M-RoPE says where a
    token lies: on an even background the vision tower, whose rotary positions are relative, gives every token the
    same. A language model that has to find this out from answers alone takes long.
    """

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.axes = nn.ModuleList(nn.Linear(shape.hidden_size, MAX_PLACE) for _ in range(3))
        self.sides = nn.ModuleList(nn.Linear(shape.hidden_size, MAX_PLACE + 1) for _ in range(2))

    def forward(self, batch: Batch, made: list[Tensor]) -> tuple[Tensor, float]:
        """Loss of placing by what the layers `made` (`Model.answer`), and the share of tokens placed rightly."""
        early = made[PLACING_LAYERS]
        tokens = early.index_select(0, torch.from_numpy(batch.placeholders))
        places = torch.from_numpy(batch.places).clamp(max=MAX_PLACE - 1)
        guesses = [axis(tokens) for axis in self.axes]
        losses = [F.cross_entropy(guess, place) for guess, place in zip(guesses, places, strict=True)]
        ends = early.index_select(0, torch.from_numpy(batch.ends))
        sizes = torch.from_numpy(batch.sizes).clamp(max=MAX_PLACE)
        losses += [F.cross_entropy(side(ends), size) for side, size in zip(self.sides, sizes, strict=True)]
        right = (guesses[1].argmax(-1) == places[1]) & (guesses[2].argmax(-1) == places[2])
        return torch.stack(losses).sum(), right.float().mean().item()


class Boxing(nn.Module):
    """Tells where the edges of things are: from the tokens that show them, and from those that are about to tell.

    A token of a picture knows its place and how far the edges are from it, but not how large the picture is; so it is
    asked for edges in merged patches from the picture's top left corner. Where a thing is about to be told, it is asked
    for in shares of the picture's width and height, as grounding answers give it. Thrown away afterwards.
    """

    def __init__(self, shape: Shape) -> None:
        """Args: shape: the model's."""
        super().__init__()
        self.edges = nn.Linear(shape.hidden_size, 4)
        self.shares = nn.Linear(shape.hidden_size, 4)
        # What the heads look at is large: from noise, their first losses would drown all others.
        for head in (self.edges, self.shares):
            nn.init.zeros_(head.weight)

    def forward(self, batch: Batch, made: list[Tensor]) -> tuple[Tensor, float]:
        """Loss of telling edges by what the layers `made` (`Model.answer`), and the mean error of a share in [0, 1]."""
        _, rows, columns = torch.from_numpy(batch.places)
        centres = torch.stack([columns, rows, columns, rows]).float() + 0.5
        edges = (centres + torch.from_numpy(batch.labels.boxes)).T  # [M, 4]: left, top, right, bottom
        things = torch.from_numpy(batch.labels.owners) >= 0
        tokens = made[POINTING_LAYER].index_select(0, torch.from_numpy(batch.placeholders))
        loss = F.smooth_l1_loss(self.edges(tokens[things]), edges[things], beta=_EDGE_BETA)
        candidates, shown = torch.from_numpy(batch.candidates), torch.from_numpy(batch.pointed)
        first = candidates.gather(1, shown.int().argmax(1, keepdim=True))[:, 0]
        beyond = (candidates < 0)[..., None]
        sizes = torch.stack([columns, rows], dim=1)[candidates.clamp(min=0)].masked_fill(beyond, 0).amax(1) + 1
        shares = edges[first] / torch.cat([sizes, sizes], dim=1)
        told = self.shares(made[BOXING_LAYERS].index_select(0, torch.from_numpy(batch.pointing)))
        loss = loss + F.smooth_l1_loss(told * _SHARES, shares * _SHARES, beta=_EDGE_BETA)
        return loss, (told - shares).abs().mean().item()


def point(language: Language, batch: Batch, made: list[Tensor]) -> tuple[Tensor, float]:
    """Loss of pointing, from each token that is about to tell of something, at the tokens that show it.

    It is asked of the first attention heads of a middle layer. To find what a question or the next phrase is about is
    what all answers have in common, and what a model this small is slowest to learn from answers alone. The loss is
    minus the logarithm of the attention that falls on what is to be shown, of all that falls on its medium.

    Args:
        language: the language model.
        batch: with something to point at.
        made: what its layers made of the batch (`Model.answer`).

    Returns:
        The loss, and the share of pointers that hit.
    """
    layer = cast(Block, language.layers[POINTING_LAYER])
    attention = layer.self_attn
    entering = layer.input_layernorm(made[POINTING_LAYER])

    def heads(project: nn.Module, index: npt.NDArray[np.int64], number: int) -> Tensor:
        rows = project(entering.index_select(0, torch.from_numpy(index))).view(len(index), -1, attention.dim)
        angles = language.angles(torch.from_numpy(batch.positions[:, index]))
        return rotate(rows[:, :number], angles.cos(), angles.sin())

    query = heads(attention.q_proj, batch.pointing, POINTING_HEADS)
    key = heads(attention.k_proj, batch.placeholders, 1)[:, 0]
    candidates, shown = torch.from_numpy(batch.candidates), torch.from_numpy(batch.pointed)[:, None]
    logits = torch.einsum("qhd,qmd->qhm", query, key[candidates.clamp(min=0)]).float() * attention.dim**-0.5
    chances = logits.masked_fill((candidates < 0)[:, None], -1e9).log_softmax(-1)
    loss = -chances.masked_fill(~shown, -1e9).logsumexp(-1).mean()
    hits = shown[:, 0].gather(1, chances[:, 0].argmax(-1, keepdim=True)).float().mean()
    return loss, hits.item()


def _mostly_things(logits: Tensor) -> Tensor:
    """Class weights under which an empty token counts a fifth of one with something in it."""
    weights = torch.ones(logits.shape[1])
    weights[0] = 0.2
    return weights
