"""Limits of all media of one request together, each with its numbers."""

from typing import Any

import pytest

from server.core.settings import MediaSettings
from server.media.errors import MediaError
from server.media.messages import Prepared
from server.media.request_limits import RequestBudget


def prepared(frames: int = 0) -> Prepared:
    """An image of 600 pixels and 4 tokens, or a video at two frames per second."""
    return Prepared(
        grid=(max(1, frames // 2), 4, 4),
        source_size=(20, 30),
        size=(56, 56),
        frame_times_s=[number / 2 for number in range(frames)],
        effective_fps=2.0 if frames else None,
    )


@pytest.mark.parametrize(
    ("settings", "frames", "message"),
    [
        ({"max_request_pixels": 1200}, 0, "to 1800 pixels before resizing; the limit is 1200"),
        ({"max_request_frames": 8}, 4, "to 12 sampled frames; the limit is 8"),
        ({"max_request_s": 4}, 4, "to 6 seconds of video; the limit is 4"),
        ({"max_request_tokens": 8}, 0, "to 12 tokens; the limit is 8"),
    ],
)
def test_the_part_that_exceeds_a_limit_is_rejected_with_the_numbers(
    settings: dict[str, Any], frames: int, message: str
) -> None:
    budget = RequestBudget(MediaSettings(**settings))
    budget.add(0, prepared(frames))
    budget.add(1, prepared(frames))
    with pytest.raises(MediaError) as caught:
        budget.add(2, prepared(frames))
    [name] = settings
    assert message in caught.value.message and f"(media.{name})" in caught.value.message
    assert caught.value.code == "request_limit_exceeded"


def test_what_a_part_became_counts_in_place_of_what_its_headers_said() -> None:
    budget = RequestBudget(MediaSettings(max_request_frames=8))
    budget.add(0, prepared(8))
    budget.add(0, prepared(4))
    budget.add(1, prepared(4))
    with pytest.raises(MediaError, match="10 sampled frames; the limit is 8"):
        budget.add(1, prepared(6))


def test_bytes_are_counted_as_they_arrive() -> None:
    budget = RequestBudget(MediaSettings(max_request_bytes=10))
    for _ in range(2):
        budget.add_bytes(5)
    with pytest.raises(MediaError, match=r"more than 10 bytes \(media\.max_request_bytes\)") as caught:
        budget.add_bytes(1)
    assert caught.value.code == "request_limit_exceeded"
