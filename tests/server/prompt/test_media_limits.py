"""The limits of images and videos: their ranges are in the wire model, in OpenAPI, and in errors of their own field."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from server.api.validation import refusal
from server.prompt.messages import ImageLimits, VideoLimits

OUT_OF_RANGE: list[dict[str, Any]] = [
    {"min_pixels": -1},
    {"min_pixels": 0},
    {"max_pixels": 0},
    {"max_pixels": 2**31},
    {"max_pixels": 10**40},
    {"resized_height": 20},
    {"resized_width": -280},
]
OUT_OF_RANGE_OF_VIDEOS: list[dict[str, Any]] = [
    {"fps": 0.0},
    {"fps": -1.0},
    {"fps": 1001.0},
    {"fps": math.inf},
    {"fps": math.nan},
    {"min_frames": 0},
    {"max_frames": 1},
    {"total_pixels": -5},
    {"video_start": -1.0},
    {"video_start": math.nan},
    {"video_end": 2.0**31},
]


@pytest.mark.parametrize("limits", OUT_OF_RANGE + OUT_OF_RANGE_OF_VIDEOS, ids=str)
def test_a_limit_out_of_range_is_rejected_at_its_field(limits: dict[str, Any]) -> None:
    model = ImageLimits if limits in OUT_OF_RANGE else VideoLimits
    [name] = limits
    with pytest.raises(ValidationError) as caught:
        model.model_validate(limits)
    error = refusal(caught.value, prefix="messages[0].content[0]")
    assert (error.param, error.code) == (f"messages[0].content[0].{name}", "invalid_value")


def test_the_smallest_and_the_largest_are_accepted() -> None:
    largest = 2**31 - 1
    least = {"min_pixels": 1, "resized_height": 28, "min_frames": 1, "max_frames": 2, "video_start": 0, "fps": 0.001}
    most = {"max_pixels": largest, "total_pixels": largest, "max_frames": largest, "video_end": largest, "fps": 1000}
    for limits in (least, most):
        assert VideoLimits.model_validate(limits).model_dump(exclude_none=True) == limits


def test_openapi_has_the_bounds() -> None:
    properties = VideoLimits.model_json_schema()["properties"]
    bounds = {name: declared["anyOf"][0] for name, declared in properties.items()}
    assert (bounds["fps"]["exclusiveMinimum"], bounds["fps"]["maximum"]) == (0, 1000)
    assert (bounds["max_frames"]["minimum"], bounds["resized_height"]["minimum"]) == (2, 28)
    assert all("maximum" in each for each in bounds.values())
