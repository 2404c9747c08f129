"""What is asked, what counts as right, and what a server is sent."""

import base64
import io

import av
import numpy as np
import pytest
from PIL import Image

from model_executor.processor.tokenizer import Tokenizer
from training.batch import Batch
from training.cases import KIND_OF_TASK, QUARTER_SIDES, cases, long_cases, quarters
from training.data import draw_sample
from training.encode import encode
from training.evaluate import media_url, one_dimensional, swapped
from training.judge import is_right, overlap
from training.pack import collate, room_for
from training.recipe import QUICK, UNDERSTAND
from training.sample import Asked, Media
from training.tasks.videos import FRAMES_PER_SECOND


@pytest.mark.parametrize("task", KIND_OF_TASK)
def test_every_task_has_held_out_cases(task: str) -> None:
    found = list(cases(UNDERSTAND, task, 2))
    assert [case.exchange.task for case in found] == [task, task]


def test_answers_are_right_exactly() -> None:
    assert is_right(Asked("color", "", "red"), " red")
    assert not is_right(Asked("color", "", "red"), "red.")
    assert is_right(Asked("second", "", "3"), "3") and not is_right(Asked("second", "", "3"), "4")


def test_boxes_are_right_by_overlap() -> None:
    asked = Asked("grounding", "", "<|box_start|>(0,0),(100,100)<|box_end|>")
    assert is_right(asked, "red circle(0,0),(100,60)")
    assert not is_right(asked, "(0,0),(100,40)") and not is_right(asked, "here")


def test_counts_are_right_by_what_stands_last() -> None:
    assert is_right(Asked("count", "", "center, left: 2"), "top, left: 2")
    assert not is_right(Asked("count", "", "center, left: 2"), "center, left: 3")
    assert is_right(Asked("count, Chinese", "", "中间：1"), "左边：1")


def test_phrases_are_right_in_any_order_and_once() -> None:
    phrases = (("a red ring at the top", "a red ring in the center"), ("a blue star",))
    asked = Asked("caption", "", "A red ring at the top, a blue star.", (), phrases)
    assert is_right(asked, "A blue star, a red ring in the center.")
    assert not is_right(asked, "A blue star.") and not is_right(asked, "A blue star, a blue star.")


def test_overlap_of_boxes() -> None:
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (20, 20, 30, 30)) == 0


@pytest.mark.parametrize("task", ["motion", "order"])
def test_longer_videos_are_as_long_as_said(task: str) -> None:
    for seconds in (5, 20):
        for case in long_cases(task, seconds, 2):
            assert case.exchange.task == task and len(case.media[0].frames) == seconds * FRAMES_PER_SECOND


@pytest.mark.parametrize("side", QUARTER_SIDES)
def test_boxes_of_quarters_hold_what_they_name(side: int) -> None:
    for item, (told, *asked) in quarters(side, 3):
        pixels = item.frames[0]
        assert pixels.shape == (side, side, 3) and len(asked) == len(told.asked.phrases) == 4
        lonely = np.ones((side, side), bool)
        for exchange in asked:
            corners = exchange.answer.partition("<|box_start|>")[2].removesuffix("<|box_end|>")
            left, top, right, bottom = (int(number) for number in corners.replace("),(", ",").strip("()").split(","))
            inside = np.zeros((side, side), bool)
            inside[top * side // 1000 : bottom * side // 1000 + 2, left * side // 1000 : right * side // 1000 + 2] = (
                True
            )
            assert (pixels[inside] < 255).any()
            lonely &= ~inside
        outside = (pixels[lonely] < 250).any(-1).sum()
        assert outside <= 0.03 * side * side


@pytest.mark.slow
def test_ablations_change_positions_only(tokenizer: Tokenizer) -> None:
    encoded = [encode(draw_sample(UNDERSTAND, "3"), tokenizer, QUICK.limits)]
    batch, _ = collate(encoded, room_for(encoded))
    for change in (one_dimensional, swapped):
        other: Batch = change(batch)
        assert (other.token_ids == batch.token_ids).all() and other.positions.shape == batch.positions.shape
    assert (one_dimensional(batch).positions == one_dimensional(batch).positions[0]).all()
    assert (swapped(batch).positions[1] == batch.positions[2]).all()


def test_images_are_sent_without_loss_and_videos_nearly_so() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (31, 45, 3), np.uint8)
    sent = Image.open(io.BytesIO(base64.b64decode(media_url(Media("image", (pixels,))).split(",")[1])))
    assert np.array_equal(np.asarray(sent), pixels)
    frames = tuple(np.full((51, 63, 3), shade, np.uint8) for shade in (10, 120, 240, 60))
    video = io.BytesIO(base64.b64decode(media_url(Media("video", frames)).split(",")[1]))
    with av.open(video, "r") as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == FRAMES_PER_SECOND
    assert len(decoded) == 4
    assert all(abs(a.astype(int) - b).max() < 12 for a, b in zip(decoded, frames, strict=True))
