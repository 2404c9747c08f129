"""Samples to arrays: rendered, sized and placed by the modules of `model_executor.processor`.

The exchanges of a sample share its media. Their prompts begin alike, so the common beginning (branch 0) is computed
once, and each exchange continues it as a branch of its own: a token sees the beginning and its own branch, at the
positions it has when the exchange stands alone. That is exactly the result of separate samples, at a fraction of the
cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from os.path import commonprefix

import numpy as np
import numpy.typing as npt

from model_executor.processor.chatml import render
from model_executor.processor.geometry import (
    CHANNELS,
    PATCH_PX,
    Grid,
    Size,
    image_grid,
    smart_resize,
    video_grid,
    video_size,
)
from model_executor.processor.mrope_positions import MediaSpan, mrope_positions
from model_executor.processor.patches import row_bytes, write_video_frame
from model_executor.processor.tokenizer import MediaPlaceholder, Segment, TemplateText, Tokenizer
from training.drawing import resize
from training.labels import Labels, token_labels
from training.recipe import SizeLimits
from training.sample import Asked, Exchange, Media, Sample, Target

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.uint8]
END = "<|im_end|>"
ROW_BYTES = row_bytes(2)


@dataclass(frozen=True, slots=True)
class Item:
    """A media item as arrays: `P` patches, of which the model makes `P / 4` tokens."""

    rows: Rows
    """uint8 [P, 1176]; the one frame of an image stands twice."""
    grid: Grid
    labels: Labels
    offset: int
    """Index of its first token in the sample's."""
    shares: npt.NDArray[np.float32]
    """[regions, 4]: left, top, right and bottom of each region, as shares of the frame's width and height."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is learned of one exchange."""

    asked: Asked
    index: Ints
    """[A]: of the tokens that predict the answer."""
    ids: Ints
    """[A]: the answer's ids, the end token included."""


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """One sample as arrays; `T` counts the tokens of all branches together."""

    items: tuple[Item, ...]
    token_ids: Ints
    """[T]"""
    positions: Ints
    """[3, T]: time, height, width."""
    branches: Ints
    """[T]: 0 for the common beginning, then the exchange counted from 1."""
    answers: tuple[Answer, ...]
    pointers: tuple[tuple[int, Target], ...]
    """Index of a token that is about to tell of something, and what."""


def prepare(item: Media, limits: SizeLimits) -> tuple[Rows, Grid]:
    """Patch rows and grid of a media item, sized as the server would."""
    height, width = item.frames[0].shape[:2]
    if item.modality == "image":
        low, high = limits.image_min_pixels, limits.image_max_pixels
        size = smart_resize(height, width, min_pixels=low, max_pixels=high)
        grid = image_grid(size)
    else:
        low, high = limits.video_min_pixels, limits.video_max_pixels
        size = video_size(height, width, len(item.frames), min_pixels=low, max_pixels=high)
        grid = video_grid(size, len(item.frames))
    rows = np.empty((grid.num_patches, ROW_BYTES), np.uint8)
    resized = {id(frame): resize(frame, Size(size.height, size.width)) for frame in item.frames}  # many are one object
    for index, frame in enumerate(item.frames):
        write_video_frame(rows, grid, index, resized[id(frame)])
    if item.modality == "image":
        both = rows.reshape(-1, CHANNELS, 2, PATCH_PX**2)
        both[:, :, 1] = both[:, :, 0]
    return rows, grid


def encode(sample: Sample, tokenizer: Tokenizer, limits: SizeLimits) -> EncodedSample:
    """A sample as arrays.

    Raises:
        ValueError: several exchanges whose common beginning does not hold all media.
    """
    prepared = [prepare(item, limits) for item in sample.media]
    grids = [grid for _, grid in prepared]
    texts = Texts.of(tokenizer)
    prompts = [texts.prompt(exchange, grids) for exchange in sample.exchanges]
    offsets = prompts[0][1]
    spans = [MediaSpan(offset, grid) for offset, grid in zip(offsets, grids, strict=True)]
    common = len(commonprefix([ids for ids, _ in prompts])) if len(prompts) > 1 else 0  # noqa: RUF071  # of lists
    behind = max((span.offset + span.grid.num_tokens for span in spans), default=0)
    if len(prompts) > 1 and common < behind:
        raise ValueError("exchanges that share media must begin with them")
    ids, positions, branches, learned, pointers, total = [], [], [], [], [], 0
    for number, (exchange, (prompt, _)) in enumerate(zip(sample.exchanges, prompts, strict=True), start=1):
        answer = texts.answer(exchange.asked)
        first = common if number > 1 else 0  # the first exchange brings the common beginning along
        whole = np.array([*prompt, *answer[:-1]], np.int64)  # nothing follows the end token
        ids.append(whole[first:])
        if number == 1:
            placed, delta = mrope_positions(len(whole), spans)
        else:
            placed = np.broadcast_to(np.arange(first, len(whole)) + delta, (3, len(whole) - first))
        positions.append(placed)
        branches.append(np.where(np.arange(first, len(whole)) < common, 0, number))
        start = total + len(prompt) - first - 1
        learned.append(Answer(exchange.asked, np.arange(start, start + len(answer)), np.array(answer, np.int64)))
        pointers += [(start + at, target) for at, target in texts.pointers(exchange.asked, answer)]
        total += len(whole) - first
    items = tuple(
        Item(rows, grid, token_labels(item, grid), offset, _shares(item))
        for item, (rows, grid), offset in zip(sample.media, prepared, offsets, strict=True)
    )
    return EncodedSample(
        items,
        np.concatenate(ids),
        np.concatenate(positions, axis=1),
        np.concatenate(branches),
        tuple(learned),
        tuple(pointers),
    )


def _shares(item: Media) -> npt.NDArray[np.float32]:
    height, width = item.frames[0].shape[:2]
    edges = [(r.left / width, r.top / height, r.right / width, r.bottom / height) for r in item.regions or ()]
    return np.array(edges, np.float32).reshape(-1, 4)


class Texts:
    """Texts to token ids, remembered where they come again."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Args: tokenizer: the model's."""
        self._tokenizer = tokenizer
        self._pads = {kind: tokenizer.special_id(f"<|{kind}_pad|>") for kind in ("image", "video")}
        self._ids = lru_cache(maxsize=1 << 15)(self._encode)
        self._comma, self._fullwidth = self._ids((TemplateText(","),)), self._ids((TemplateText("，"),))

    @staticmethod
    @lru_cache(maxsize=4)
    def of(tokenizer: Tokenizer) -> "Texts":
        """The one of a tokenizer."""
        return Texts(tokenizer)

    def _encode(self, segments: tuple[Segment, ...]) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(segments, []).token_ids)

    def prompt(self, exchange: Exchange, grids: Sequence[Grid]) -> tuple[list[int], list[int]]:
        """Ids of a prompt and the index of each media item's first placeholder; texts end where media begin."""
        ids: list[int] = []
        offsets = [0] * len(grids)
        run: list[Segment] = []
        for segment in render(exchange.messages):
            if not isinstance(segment, MediaPlaceholder):
                run.append(segment)
                continue
            ids += self._ids(tuple(run))
            run = []
            offsets[segment.index] = len(ids)
            ids += [self._pads[segment.modality]] * grids[segment.index].num_tokens  # type: ignore[list-item]
        return ids + list(self._ids(tuple(run))), offsets

    def answer(self, asked: Asked) -> list[int]:
        """Ids of an answer and of the token that ends it."""
        pieces = asked.answer if asked.spelled else (asked.answer,)
        return [token for piece in (*pieces, END) for token in self._ids((TemplateText(piece),))]

    def pointers(self, asked: Asked, answer: Sequence[int]) -> list[tuple[int, Target]]:
        """Where in the answer each target is about to be told of: how many tokens have been said, and the target.

        All along the answer where that is a box.

        Raises:
            ValueError: the answer has neither one target, nor one for each character, nor one for each phrase.
        """
        targets = asked.targets
        if "<|box_start|>" in asked.answer:
            return [(index, target) for target in targets for index in range(len(answer))]
        if len(targets) <= 1:
            return [(0, target) for target in targets]
        if asked.spelled:
            return list(enumerate(targets))
        commas = (self._comma, self._fullwidth)
        starts = [0, *(index + 1 for index, token_id in enumerate(answer) if (token_id,) in commas)]
        return list(zip(starts, targets, strict=True))
