"""Encoded samples into a batch: each where there is room for it, until there is none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from model_executor.processor.geometry import Grid
from training.batch import Batch, Block, arrays, layout, view
from training.encode import EncodedSample, Item
from training.recipe import Capacity

Ints = npt.NDArray[np.int64]


@dataclass
class Notes:
    """What is remembered of a batch for the log."""

    tasks: list[str] = field(default_factory=list)
    """The task of each exchange."""
    lengths: list[int] = field(default_factory=list)
    """Answer tokens of each exchange."""
    num_samples: int = 0

    @property
    def exchanges(self) -> Ints:
        """By answer token: index of its exchange."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


class Packer:
    """Fills one block."""

    def __init__(self, block: Block, size: Capacity) -> None:
        """Args: block: to be written over; as long as `layout` says. size: of the batch."""
        self._size = size
        self._a = arrays(block, size)
        for name, place in layout(size)[0].items():
            if name != "rows":
                self._a[name].fill(place.padding)
        num_tokens, num_merged = size.bins * size.bin_tokens, size.num_patches // 4
        self._a["sources"][:] = np.arange(num_tokens) % num_merged
        self._a["placeholders"][:] = np.arange(num_merged) % num_tokens
        self._a["answer_index"][:] = np.arange(size.answers) % num_tokens
        self._tokens, self._patches = np.zeros(size.bins, np.int64), np.zeros(size.windows, np.int64)
        self._slices, self._samples = np.zeros(size.windows, np.int64), np.zeros(size.bins, np.int64)
        self._media, self._regions = np.zeros(size.bins, np.int64), np.zeros(size.bins, np.int64)
        self._queries = np.zeros(size.bins, np.int64)
        self._num_media, self._num_answers = 0, 0
        self.notes = Notes()

    def add(self, sample: EncodedSample) -> bool:
        """Put a sample in; False, and nothing changed, if there is no room for it."""
        bin_ = _first(self._tokens, len(sample.token_ids), self._size.bin_tokens)
        windows = self._windows(sample.items)
        answers = sum(len(answer.ids) for answer in sample.answers)
        if (
            bin_ is None
            or windows is None
            or self._num_answers + answers > self._size.answers
            or self._num_media + len(sample.items) > self._size.media
        ):
            return False
        start = int(self._tokens[bin_])
        self._samples[bin_] += 1
        self._write_tokens(sample, bin_, start)
        flat = bin_ * self._size.bin_tokens + start
        firsts = [self._write_item(item, bin_, flat, windows) for item in sample.items]
        self._write_pointers(sample, bin_, start, firsts)
        self._write_answers(sample, flat)
        self._tokens[bin_] += len(sample.token_ids)
        self.notes.num_samples += 1
        return True

    def finish(self) -> Notes:
        """Weigh the answers: one of n tokens weighs sqrt(n), so that captions do not drown one-word answers."""
        number = self.notes.exchanges
        weights = np.bincount(number)[number] ** -0.5 if len(number) else np.zeros(0)
        self._a["answer_weights"][: len(number)] = weights / max(weights.sum(), 1e-9)
        return self.notes

    def _windows(self, items: Sequence[Item]) -> list[int] | None:
        """The window of each slice of the items; None if one of them has no room."""
        patches, found = self._patches.copy(), []
        for item in items:
            for _ in range(item.grid.t):
                window = _first(patches, item.grid.h * item.grid.w, self._size.window_patches)
                if window is None:
                    return None
                patches[window] += item.grid.h * item.grid.w
                found.append(window)
        return found

    def _write_tokens(self, sample: EncodedSample, bin_: int, start: int) -> None:
        at = slice(start, start + len(sample.token_ids))
        self._a["token_ids"][bin_, at] = sample.token_ids
        self._a["positions"][:, bin_, at] = sample.positions
        self._a["samples"][bin_, at] = self._samples[bin_]
        self._a["branches"][bin_, at] = sample.branches

    def _write_item(self, item: Item, bin_: int, flat: int, windows: list[int]) -> int:
        """Write a media item into the next of `windows`; returns what its regions are numbered from."""
        a, grid, first_token = self._a, item.grid, flat + item.offset
        self._media[bin_] += 1
        per_slice, first_region = grid.h * grid.w, int(self._regions[bin_])
        token_of = np.arange(grid.num_tokens) + first_token
        rows, columns = _patch_places(grid)
        for number in range(grid.t):
            window = windows.pop(0)
            begin = window * self._size.window_patches + int(self._patches[window])
            patches, merged = slice(begin, begin + per_slice), slice(begin // 4, (begin + per_slice) // 4)
            mine = slice(number * per_slice // 4, (number + 1) * per_slice // 4)
            self._slices[window] += 1
            a["rows"][patches] = item.rows[number * per_slice : (number + 1) * per_slice]
            a["patch_positions"][0, patches], a["patch_positions"][1, patches] = rows, columns
            a["patch_slices"].reshape(-1)[patches] = self._slices[window]
            a["visible"][merged] = 1
            a["names"][:, merged] = item.labels.names[:, mine]
            a["owned"][merged] = item.labels.owners[mine] >= 0
            a["boxes"][:, merged] = item.labels.boxes[:, mine]
            a["places"][0, merged] = number
            a["places"][1:, merged] = rows[::4] // 2, columns[::4] // 2
            a["placeholders"][merged] = token_of[mine]
            a["sources"][token_of[mine]] = np.arange(begin // 4, (begin + per_slice) // 4)
            self._patches[window] += per_slice
        tokens = slice(first_token, first_token + grid.num_tokens)
        a["media"].reshape(-1)[tokens] = self._media[bin_]
        owners = item.labels.owners
        a["owners"].reshape(-1)[tokens] = np.where(owners >= 0, owners + 1 + first_region, 0)
        self._regions[bin_] += len(item.shares)
        a["ends"][self._num_media] = first_token + grid.num_tokens
        a["sizes"][:, self._num_media] = grid.h // 2, grid.w // 2
        self._num_media += 1
        return first_region

    def _write_pointers(self, sample: EncodedSample, bin_: int, start: int, firsts: list[int]) -> None:
        """Pointers at regions that some token shows, while there is room."""
        shown = [set(item.labels.owners.tolist()) for item in sample.items]
        first_item = int(self._media[bin_]) - len(sample.items)
        for index, (item, region) in sample.pointers:
            query = int(self._queries[bin_])
            if region not in shown[item] or query == self._size.bin_queries:
                continue
            at = bin_, query
            self._a["queries"][at] = start + index
            self._a["query_media"][at] = first_item + item + 1
            self._a["query_owners"][at] = firsts[item] + region + 1
            self._a["query_weights"][at] = 1
            self._a["query_shares"][at] = sample.items[item].shares[region]
            self._queries[bin_] += 1

    def _write_answers(self, sample: EncodedSample, flat: int) -> None:
        for answer in sample.answers:
            at = slice(self._num_answers, self._num_answers + len(answer.ids))
            self._a["answer_index"][at] = answer.index + flat
            self._a["answer_ids"][at] = answer.ids
            self.notes.lengths.append(len(answer.ids))
            self.notes.tasks.append(answer.asked.task)
            self._num_answers += len(answer.ids)


def _first(used: Ints, wanted: int, room: int) -> int | None:
    """The fullest place that has room for what is wanted."""
    after = used + wanted
    after[after > room] = -1
    best = int(after.argmax())
    return best if after[best] >= 0 else None


def _patch_places(grid: Grid) -> tuple[Ints, Ints]:
    """Row and column of each patch of a slice, in the order of patch rows (h/2, w/2, 2, 2)."""
    rows, columns = np.indices((grid.h, grid.w))
    both = np.stack([rows, columns]).reshape(2, grid.h // 2, 2, grid.w // 2, 2).transpose(0, 1, 3, 2, 4)
    flat = both.reshape(2, -1)
    return flat[0], flat[1]


def collate(samples: Iterable[EncodedSample], size: Capacity) -> tuple[Batch, Notes]:
    """A batch of its own of all the samples.

    Raises:
        ValueError: there is no room for one of them.
    """
    block = np.zeros(layout(size)[1], np.uint8)
    packer = Packer(block, size)
    if not all(packer.add(sample) for sample in samples):
        raise ValueError("the samples do not fit into a batch of this size")
    notes = packer.finish()
    return view(torch.from_numpy(block), size), notes


def room_for(samples: Sequence[EncodedSample]) -> Capacity:
    """A size that holds the samples, one to a bin."""
    longest = max(len(sample.token_ids) for sample in samples)
    slices = [item.grid.h * item.grid.w for sample in samples for item in sample.items for _ in range(item.grid.t)]
    return Capacity(
        bins=len(samples),
        bin_tokens=-(-longest // 8) * 8,
        windows=max(1, len(slices)),
        window_patches=max([8, *(-(-patches // 8) * 8 for patches in slices)]),
        bin_queries=max(1, *(len(sample.pointers) for sample in samples)),
        answers=sum(len(answer.ids) for sample in samples for answer in sample.answers),
        media=max(1, sum(len(sample.items) for sample in samples)),
    )
