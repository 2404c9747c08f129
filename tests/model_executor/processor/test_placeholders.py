"""Placeholders against grids."""

import msgspec
import pytest

from model_executor.engine import MediaItem, Modality, Prompt
from model_executor.processor.placeholders import find_placeholder_fault

IDS: dict[Modality, int] = {"image": 7, "video": 8}
IMAGE = MediaItem("image", (1, 2, 4), 1, 2, "digest", "path")
VIDEO = MediaItem("video", (2, 2, 4), 4, 4, "digest", "path")


def test_a_prompt_that_agrees_passes() -> None:
    assert find_placeholder_fault(Prompt([1, 7, 7, 2, 8, 8, 8, 8, 3], [IMAGE, VIDEO]), IDS) is None
    assert find_placeholder_fault(Prompt([1, 2, 3]), IDS) is None


@pytest.mark.parametrize(
    "token_ids",
    [
        [1, 7, 2],  # one short
        [1, 7],  # cut off
        [1, 7, 7, 7],  # one too many
        [7, 7, 1, 1],  # elsewhere
        [1, 8, 8, 1],  # of the other modality
        [1, 7, 7, 1, 8],  # one of the other modality too many
    ],
)
def test_a_prompt_that_disagrees_fails(token_ids: list[int]) -> None:
    assert find_placeholder_fault(Prompt(token_ids, [IMAGE]), IDS) is not None


def test_an_item_that_the_prompt_does_not_contain_fails() -> None:
    assert find_placeholder_fault(Prompt([1, 7, 7], [msgspec.structs.replace(IMAGE, offset=-1)]), IDS) is not None


def test_a_grid_of_another_size_fails() -> None:
    item = msgspec.structs.replace(IMAGE, grid=(1, 2, 6))
    assert find_placeholder_fault(Prompt([1, 7, 7], [item]), IDS) is not None


def test_overlapping_items_fail() -> None:
    items = [IMAGE, msgspec.structs.replace(IMAGE, offset=2)]
    assert find_placeholder_fault(Prompt([1, 7, 7, 7], items), IDS) is not None
