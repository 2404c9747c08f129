"""What counts as right, and what a server is sent."""

import base64
import io

import av
import numpy as np
import pytest
from PIL import Image

from model_executor.processor.tokenizer import Tokenizer
from training.batch import Batch, collate, encode
from training.data import draw_sample
from training.evaluate import KIND_OF_TASK, cases, is_right, long_cases, media_url, one_dimensional, overlap, swapped
from training.recipe import QUICK, UNDERSTAND
from training.sample import Exchange, Medium


@pytest.mark.parametrize("task", KIND_OF_TASK)
def test_every_task_has_held_out_cases(task: str) -> None:
    found = list(cases(UNDERSTAND, task, 2))
    assert [case.exchange.task for case in found] == [task, task]


def test_answers_are_right_exactly_boxes_by_overlap_seconds_within_half() -> None:
    assert is_right(Exchange("color", (), "red"), " red")
    assert not is_right(Exchange("color", (), "red"), "red.")
    box = Exchange("grounding", (), "<|box_start|>(0,0),(100,100)<|box_end|>")
    assert (
        is_right(box, "red circle(0,0),(100,60)") and not is_right(box, "(0,0),(100,40)") and not is_right(box, "here")
    )
    assert is_right(Exchange("second", (), "3"), "3") and not is_right(Exchange("second", (), "3"), "4")


def test_overlap_of_boxes() -> None:
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (20, 20, 30, 30)) == 0


def test_longer_clips_are_longer() -> None:
    lengths = {len(case.media[0].frames) for case in long_cases("order", 4, UNDERSTAND, 3)}
    assert lengths == {4 * UNDERSTAND.clip_frames[1]}


def test_ablations_change_positions_only(tokenizer: Tokenizer) -> None:
    batch = collate([encode(draw_sample(UNDERSTAND, "3"), tokenizer, QUICK.limits)])
    for change in (one_dimensional, swapped):
        other: Batch = change(batch)
        assert (other.token_ids == batch.token_ids).all() and other.positions.shape == batch.positions.shape
    assert (one_dimensional(batch).positions == one_dimensional(batch).positions[0]).all()
    assert (swapped(batch).positions[1] == batch.positions[2]).all()


def test_pictures_are_sent_without_loss_and_clips_nearly_so() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (31, 45, 3), np.uint8)
    sent = Image.open(io.BytesIO(base64.b64decode(media_url(Medium("image", (pixels,))).split(",")[1])))
    assert np.array_equal(np.asarray(sent), pixels)
    frames = tuple(np.full((51, 63, 3), shade, np.uint8) for shade in (10, 120, 240, 60))
    clip = io.BytesIO(base64.b64decode(media_url(Medium("video", frames)).split(",")[1]))
    with av.open(clip, "r") as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 2
    assert len(decoded) == 4
    assert all(abs(a.astype(int) - b).max() < 12 for a, b in zip(decoded, frames, strict=True))
