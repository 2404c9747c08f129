"""Samples to arrays: rendered, sized and placed by the modules of `model_executor.processor`.

The exchanges of a sample share its media. Their prompts begin alike, so the common beginning (branch 0) is computed
once, and each exchange continues it as a branch of its own: a token sees the beginning and its own branch, at the
positions it has when the exchange stands alone. That is exactly the result of separate samples, at a fraction of the
cost. Tokens and patches of a whole batch lie flat, one after another; only attention needs to know who is whose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonprefix

import numpy as np
import numpy.typing as npt

from model_executor.processor.chatml import render
from model_executor.processor.geometry import Grid, image_grid, smart_resize, video_grid, video_size
from model_executor.processor.mrope_positions import MediaSpan, mrope_positions
from model_executor.processor.patches import row_bytes, write_image, write_video_frame
from model_executor.processor.tokenizer import TemplateText, Tokenizer
from training.drawing import resize
from training.recipe import Limits
from training.sample import Exchange, Medium, Sample, Target
from training.world import COLORS, SHAPES

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
END = "<|im_end|>"
COLOR_LABELS = tuple(COLORS)
SYMBOL_LABELS = (*SHAPES, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"0123456789")
UNTOLD = -100
_LEAST_COVERED = 0.12
"""Share of a merged patch that a thing must cover to be what the patch shows."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What `M` merged patches show: the thing that covers most of each."""

    names: Ints
    """[2, M]: colour (1 + index in `COLOR_LABELS`) and symbol (likewise); 0 where nothing is, `UNTOLD` where nobody
    says."""
    owners: Ints
    """[M]: index of the region that each shows; -1 where nothing is, or nobody says."""
    boxes: Floats
    """[4, M]: from the patch's centre to the thing's left, top, right and bottom edges, in merged patches; rightwards
    and downwards positive. 0 where nothing is."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sample as arrays; `T` counts the tokens of all branches together."""

    rows: tuple[npt.NDArray[np.uint8], ...]
    """By medium: uint8 [P, 588] of a still, [P, 1176] of a clip."""
    grids: tuple[Grid, ...]
    labels: tuple[Labels, ...]
    """By medium: what each merged patch shows (`token_labels`)."""
    token_ids: Ints
    """[T]"""
    positions: Ints
    """[3, T]: time, height, width."""
    branches: Ints
    """[T]: 0 for the common beginning, then the exchange counted from 1."""
    media_offsets: tuple[int, ...]
    """By medium: index of its first placeholder."""
    answers: tuple[tuple[str, Ints, Ints], ...]
    """By exchange: task, indices [A] of the tokens that predict the answer, and the answer's ids [A]."""
    pointers: tuple[tuple[int, Target], ...]
    """Index of a token that is about to tell of something, and what."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch, flat: `T` tokens of `S` samples, `P` patches of all media, `A` answer tokens."""

    still_rows: npt.NDArray[np.uint8]
    """[P of stills, 588]; stills come before clips in all patch arrays."""
    clip_rows: npt.NDArray[np.uint8]
    """[P of clips, 1176]"""
    slice_patches: Ints
    """Patches of each temporal slice, in order; sums to `P`."""
    patch_positions: Ints
    """[2, P]: row and column of each patch in its slice."""
    labels: Labels
    """Of all P / 4 merged patches."""
    places: Ints
    """[3, P / 4]: slice, row and column of each merged patch."""
    placeholders: Ints
    """[P / 4]: index in the tokens of each merged patch."""
    ends: Ints
    """[media]: index in the tokens of the one that ends each medium."""
    sizes: Ints
    """[2, media]: rows and columns of merged patches of each medium."""
    token_ids: Ints
    positions: Ints
    branches: Ints
    sample_tokens: Ints
    """[S]; sums to `T`. Samples are sorted by it."""
    answer_index: Ints
    """[A]: index of the token that predicts each answer token."""
    answer_ids: Ints
    pointing: Ints
    """[Q]: index of each token that is about to tell of something."""
    pointed: npt.NDArray[np.bool_]
    """[Q, longest medium]: which merged patches of the medium in question show it; at least one does."""
    candidates: Ints
    """[Q, longest medium]: index in P / 4 of the medium's merged patches; -1 beyond its last."""
    answer_exchange: Ints
    """[A]: which exchange of `tasks` an answer token belongs to."""
    tasks: tuple[str, ...]


def prepare(medium: Medium, limits: Limits) -> tuple[npt.NDArray[np.uint8], Grid]:
    """Patch rows and grid of a medium, sized as the server would."""
    height, width = medium.frames[0].shape[:2]
    if medium.modality == "image":
        low, high = limits.image_min_pixels, limits.image_max_pixels
        size = smart_resize(height, width, min_pixels=low, max_pixels=high)
        grid = image_grid(size)
        rows = np.empty((grid.num_patches, row_bytes(1)), np.uint8)
        write_image(rows, grid, resize(medium.frames[0], size))
        return rows, grid
    low, high = limits.video_min_pixels, limits.video_max_pixels
    size = video_size(height, width, len(medium.frames), min_pixels=low, max_pixels=high)
    grid = video_grid(size, len(medium.frames))
    rows = np.empty((grid.num_patches, row_bytes(2)), np.uint8)
    resized = {id(frame): resize(frame, size) for frame in medium.frames}  # many frames are one object
    for index, frame in enumerate(medium.frames):
        write_video_frame(rows, grid, index, resized[id(frame)])
    return rows, grid


def encode(sample: Sample, tokenizer: Tokenizer, limits: Limits) -> Encoded:
    """A sample as arrays.

    Raises:
        ValueError: several exchanges whose common beginning does not hold all media.
    """
    prepared = [prepare(medium, limits) for medium in sample.media]
    grids = tuple(grid for _, grid in prepared)
    prompts, answers = zip(*(_tokens(exchange, tokenizer, grids) for exchange in sample.exchanges), strict=True)
    shared = len(commonprefix([prompt.token_ids for prompt in prompts])) if len(prompts) > 1 else 0
    offsets = prompts[0].media_offsets
    if len(prompts) > 1 and any(offset + grid.num_tokens > shared for offset, grid in zip(offsets, grids, strict=True)):
        raise ValueError("exchanges that share media must begin with them")
    spans = [MediaSpan(offset, grid) for offset, grid in zip(offsets, grids, strict=True)]
    ids, positions, branches, learnt, pointers, total = [], [], [], [], [], 0
    for number, (exchange, prompt, answer) in enumerate(zip(sample.exchanges, prompts, answers, strict=True), start=1):
        first = shared if number > 1 else 0  # the first exchange brings the common beginning along
        whole = np.array(prompt.token_ids + answer[:-1], np.int64)  # nothing follows the end token
        ids.append(whole[first:])
        positions.append(mrope_positions(len(whole), spans)[0][:, first:])
        branches.append(np.where(np.arange(first, len(whole)) < shared, 0, number))
        start = total + len(prompt.token_ids) - first - 1
        learnt.append((exchange.task, np.arange(start, start + len(answer)), np.array(answer, np.int64)))
        pointers += [(start + at, target) for at, target in _pointers(exchange, answer, tokenizer)]
        total += len(whole) - first
    return Encoded(
        tuple(rows for rows, _ in prepared),
        grids,
        tuple(token_labels(medium, grid) for medium, grid in zip(sample.media, grids, strict=True)),
        np.concatenate(ids),
        np.concatenate(positions, axis=1),
        np.concatenate(branches),
        tuple(offsets),
        tuple(learnt),
        tuple(pointers),
    )


def _pointers(exchange: Exchange, answer: Sequence[int], tokenizer: Tokenizer) -> list[tuple[int, Target]]:
    """Where in the answer each target is about to be told of: how many of its tokens have been said, and the target.

    All along the answer where that is a box.

    Raises:
        ValueError: the answer has neither one target, nor one for each token, nor one for each phrase.
    """
    targets = exchange.targets
    if "<|box_start|>" in exchange.answer:
        return [(index, target) for target in targets for index in range(len(answer))]
    if len(targets) <= 1:
        return [(0, target) for target in targets]
    if len(answer) - 1 == len(targets):  # the end token tells of nothing
        return list(enumerate(targets))
    comma = tokenizer.encode([TemplateText(",")], []).token_ids
    starts = [0, *(index + 1 for index, token_id in enumerate(answer) if [token_id] == comma)]
    return list(zip(starts, targets, strict=True))


def _tokens(exchange: Exchange, tokenizer: Tokenizer, grids: Sequence[Grid]):  # type: ignore[no-untyped-def]
    prompt = tokenizer.encode(render(exchange.messages), [grid.num_tokens for grid in grids])
    return prompt, tokenizer.encode([TemplateText(exchange.answer + END)], []).token_ids


def collate(samples: Sequence[Encoded]) -> Batch:
    """Lay samples one after another, short ones first."""
    samples = sorted(samples, key=lambda sample: len(sample.token_ids))
    starts = np.cumsum([0, *(len(sample.token_ids) for sample in samples)])
    media = [
        (rows, grid, start + offset, labels)
        for sample, start in zip(samples, starts, strict=False)
        for rows, grid, offset, labels in zip(
            sample.rows, sample.grids, sample.media_offsets, sample.labels, strict=True
        )
    ]
    stills = [item for item in media if item[0].shape[1] == row_bytes(1)]
    clips = [item for item in media if item[0].shape[1] != row_bytes(1)]
    media = stills + clips
    placeholders = _join([np.arange(start, start + grid.num_tokens) for _, grid, start, _ in media])
    pointing, candidates, pointed = _pointed(samples, starts, placeholders)
    answers = [
        (task, index + start, ids)
        for sample, start in zip(samples, starts, strict=False)
        for task, index, ids in sample.answers
    ]
    return Batch(
        still_rows=_stack([rows for rows, *_ in stills], row_bytes(1)),
        clip_rows=_stack([rows for rows, *_ in clips], row_bytes(2)),
        slice_patches=np.array([grid.h * grid.w for _, grid, *_ in media for _ in range(grid.t)], np.int64),
        patch_positions=np.concatenate(
            [np.zeros((2, 0), np.int64), *(patch_positions(g) for _, g, *_ in media)], axis=1
        ),
        labels=Labels(
            np.concatenate([np.zeros((2, 0), np.int64), *(labels.names for *_, labels in media)], axis=1),
            _join([labels.owners for *_, labels in media]),
            np.concatenate([np.zeros((4, 0), np.float32), *(labels.boxes for *_, labels in media)], axis=1),
        ),
        places=np.concatenate([np.zeros((3, 0), np.int64), *(_places(grid) for _, grid, *_ in media)], axis=1),
        placeholders=placeholders,
        ends=np.array([start + grid.num_tokens for _, grid, start, _ in media], np.int64),
        sizes=np.array([(grid.h // 2, grid.w // 2) for _, grid, *_ in media], np.int64).reshape(-1, 2).T,
        token_ids=_join([sample.token_ids for sample in samples]),
        positions=np.concatenate([sample.positions for sample in samples], axis=1),
        branches=_join([sample.branches for sample in samples]),
        sample_tokens=np.array([len(sample.token_ids) for sample in samples], np.int64),
        answer_index=_join([index for _, index, _ in answers]),
        answer_ids=_join([ids for _, _, ids in answers]),
        pointing=pointing,
        pointed=pointed,
        candidates=candidates,
        answer_exchange=_join([np.full(len(ids), number) for number, (_, _, ids) in enumerate(answers)]),
        tasks=tuple(task for task, _, _ in answers),
    )


def _pointed(
    samples: Sequence[Encoded], starts: npt.NDArray[np.int64], placeholders: Ints
) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    """`Batch.pointing`, `Batch.candidates` and `Batch.pointed`; targets that no patch shows are left out."""
    patch_of_token = np.full(int(starts[-1]), -1)
    patch_of_token[placeholders] = np.arange(len(placeholders))
    found = [
        (start + index, patch_of_token[start + sample.media_offsets[medium]], sample.labels[medium].owners == region)
        for sample, start in zip(samples, starts, strict=False)
        for index, (medium, region) in sample.pointers
    ]
    found = [(index, first, shown) for index, first, shown in found if shown.any()]
    longest = max((len(shown) for *_, shown in found), default=0)
    candidates = np.full((len(found), longest), -1)
    pointed = np.zeros((len(found), longest), bool)
    for row, (_, first, shown) in enumerate(found):
        candidates[row, : len(shown)] = first + np.arange(len(shown))
        pointed[row, : len(shown)] = shown
    return np.array([index for index, *_ in found], np.int64), candidates, pointed


def token_labels(medium: Medium, grid: Grid) -> Labels:
    """What each merged patch shows most of; in a medium that does not say, nothing is told."""
    if medium.regions is None:
        untold = np.full((2, grid.num_tokens), UNTOLD, np.int64)
        return Labels(untold, np.full(grid.num_tokens, -1), np.zeros((4, grid.num_tokens), np.float32))
    merged = (grid.t, grid.h // 2, grid.w // 2)
    names, owners = np.zeros((2, *merged), np.int64), np.full(merged, -1)
    boxes = np.zeros((4, *merged), np.float32)
    most = np.full(merged, _LEAST_COVERED)
    height, width = medium.frames[0].shape[:2]
    down, across = merged[1] / height, merged[2] / width  # merged patches a source pixel
    rows, columns = np.arange(merged[1])[:, None], np.arange(merged[2])[None]
    for number, region in enumerate(medium.regions):
        left, top, right, bottom = region.left * across, region.top * down, region.right * across, region.bottom * down
        high = np.minimum(rows + 1, bottom) - np.maximum(rows, top)
        wide = np.minimum(columns + 1, right) - np.maximum(columns, left)
        covered = np.clip(high, 0, 1) * np.clip(wide, 0, 1)
        at, here = region.slice, covered > most[region.slice]
        most[at, here], owners[at, here] = covered[here], number
        names[0, at, here] = UNTOLD if region.color is None else 1 + COLOR_LABELS.index(region.color)
        names[1, at, here] = 1 + SYMBOL_LABELS.index(region.symbol)
        edges = (left - columns, top - rows, right - columns, bottom - rows)
        boxes[:, at, here] = [np.broadcast_to(edge - 0.5, here.shape)[here] for edge in edges]
    return Labels(names.reshape(2, -1), owners.reshape(-1), boxes.reshape(4, -1))


def _places(grid: Grid) -> Ints:
    return np.indices((grid.t, grid.h // 2, grid.w // 2)).reshape(3, -1).astype(np.int64)


def patch_positions(grid: Grid) -> Ints:
    """[2, P]: row and column of each patch, in the order of patch rows (t, h/2, w/2, 2, 2)."""
    rows, columns = np.indices((grid.h, grid.w))
    both = np.stack([rows, columns]).reshape(2, grid.h // 2, 2, grid.w // 2, 2).transpose(0, 1, 3, 2, 4)
    return np.tile(both.reshape(2, -1), (1, grid.t)).astype(np.int64)


def _join(arrays: Sequence[Ints]) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *arrays])


def _stack(rows: Sequence[npt.NDArray[np.uint8]], width: int) -> npt.NDArray[np.uint8]:
    return np.concatenate([np.zeros((0, width), np.uint8), *rows])
