"""M-RoPE positions against a slow, literal reading of the paper."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_executor.processor.geometry import Grid
from model_executor.processor.mrope_positions import MAX_VIDEO_S, MediaSpan, mrope_positions, num_positions

GRIDS = st.builds(lambda t, h, w: Grid(t, 2 * h, 2 * w), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5))


def literal(texts: list[int], grids: list[Grid]) -> list[tuple[int, int, int]]:
    """Token by token: text, medium, text, medium, …, text."""
    out: list[tuple[int, int, int]] = []

    def start() -> int:
        return max((max(p) for p in out), default=-1) + 1

    for count, grid in zip(texts, [*grids, None], strict=True):
        for _ in range(count):
            out.append((start(),) * 3)
        if grid is not None:
            base = start()
            for t in range(grid.t):
                for h in range(grid.h // 2):
                    for w in range(grid.w // 2):
                        out.append((base + t, base + h, base + w))
    return out


@given(st.lists(st.tuples(st.integers(0, 6), GRIDS), max_size=5), st.integers(0, 6))
def test_equals_a_literal_reading(parts: list[tuple[int, Grid]], tail: int) -> None:
    texts, grids = [count for count, _ in parts] + [tail], [grid for _, grid in parts]
    spans, offset = [], 0
    for count, grid in parts:
        spans.append(MediaSpan(offset + count, grid))
        offset += count + grid.num_tokens
    positions, delta = mrope_positions(offset + tail, spans)
    expected = literal(texts, grids)
    assert [tuple(column) for column in positions.T.tolist()] == expected
    assert offset + tail + delta == max((max(p) for p in expected), default=-1) + 1


def test_text_alone_counts_up_on_all_axes() -> None:
    positions, delta = mrope_positions(4, [])
    assert positions.tolist() == [[0, 1, 2, 3]] * 3
    assert delta == 0


def test_a_long_clip_advances_by_its_time_axis() -> None:
    positions, delta = mrope_positions(2 + 10 + 1, [MediaSpan(2, Grid(10, 2, 2))])
    assert positions[:, 2:12].tolist() == [list(range(2, 12)), [2] * 10, [2] * 10]
    assert positions[:, 12].tolist() == [12, 12, 12]
    assert delta == 0


@pytest.mark.parametrize(
    "spans", [[MediaSpan(3, Grid(1, 2, 2)), MediaSpan(1, Grid(1, 2, 2))], [MediaSpan(5, Grid(1, 2, 2))]]
)
def test_refuses_spans_that_do_not_fit(spans: list[MediaSpan]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        mrope_positions(5, spans)


@pytest.mark.parametrize(("slice_s", "expected"), [(1.0, [0, 2, 4, 6]), (0.4, [0, 0, 1, 2]), (2 / 0.6, [0, 6, 13, 20])])
def test_ids_that_count_seconds_rise_with_the_time_between_slices(slice_s: float, expected: list[int]) -> None:
    spans = [MediaSpan(1, Grid(4, 2, 2), slice_s), MediaSpan(5, Grid(1, 4, 4))]
    positions, delta = mrope_positions(10, spans, 2.0)
    assert (positions[0, 1:5] - 1).tolist() == expected
    following = 1 + max(expected) + 1
    assert positions[:, 5:9].tolist() == [
        [following] * 4,
        [following, following, following + 1, following + 1],
        [following, following + 1, following, following + 1],
    ]
    assert delta == following + 2 + 1 - 10


@given(st.integers(1, 300), st.floats(0.05, 50), st.integers(1, 25))
def test_time_ids_equal_transformers(num_slices: int, slice_s: float, ids_per_s: int) -> None:
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

    grid = torch.tensor([num_slices, 2, 2])
    step = ids_per_s * torch.tensor(slice_s)
    theirs = Qwen2_5_VLModel.get_vision_position_ids(None, 0, grid, 1, 2, step)  # type: ignore[arg-type]
    ours, _ = mrope_positions(num_slices, [MediaSpan(0, Grid(num_slices, 2, 2), slice_s)], ids_per_s)
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("ids_per_s", [None, 2.0])
def test_there_are_positions_for_a_full_context_of_the_longest_videos(ids_per_s: float | None) -> None:
    longest = MediaSpan(0, Grid(384, 2, 2), MAX_VIDEO_S / 384)
    positions, _ = mrope_positions(4096, [longest], ids_per_s)
    assert positions.max() < num_positions(4096, ids_per_s)
