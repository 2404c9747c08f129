"""The sums of one request, each with its limit."""

from typing import Any

import pytest

from server.core.errors import BadRequestError
from server.core.settings import MediaSettings
from server.media.messages import Prepared
from server.media.request_limits import RequestBudget


def medium(frames: int = 0) -> Prepared:
    """A picture of 600 pixels and 4 tokens, or a clip at two frames a second."""
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
        ({"max_request_pixels": 1200}, 0, "1800 pixels before resizing together; at most 1200"),
        ({"max_request_frames": 8}, 4, "12 sampled frames together; at most 8"),
        ({"max_request_s": 4}, 4, "6 seconds of clips together; at most 4"),
        ({"max_request_tokens": 8}, 0, "12 tokens together; at most 8"),
    ],
)
def test_the_part_that_passes_a_limit_is_refused_with_the_numbers(
    settings: dict[str, Any], frames: int, message: str
) -> None:
    allowance = RequestBudget(MediaSettings(**settings))
    allowance.take(0, medium(frames), "a")
    allowance.take(1, medium(frames), "b")
    with pytest.raises(BadRequestError) as caught:
        allowance.take(2, medium(frames), "c")
    [name] = settings
    assert message in caught.value.message and f"(media.{name})" in caught.value.message
    assert caught.value.param == "c"


def test_what_a_part_became_counts_in_place_of_what_its_headers_said() -> None:
    allowance = RequestBudget(MediaSettings(max_request_frames=8))
    allowance.take(0, medium(8), "a")
    allowance.take(0, medium(4), "a")
    allowance.take(1, medium(4), "b")
    with pytest.raises(BadRequestError, match="10 sampled frames together; at most 8"):
        allowance.take(1, medium(6), "b")


def test_bytes_are_counted_as_they_come() -> None:
    allowance = RequestBudget(MediaSettings(max_request_bytes=10))
    for _ in range(2):
        allowance.take_bytes(5, "a")
    with pytest.raises(BadRequestError, match=r"larger than 10 bytes together \(media\.max_request_bytes\)") as caught:
        allowance.take_bytes(1, "b")
    assert caught.value.param == "b"
