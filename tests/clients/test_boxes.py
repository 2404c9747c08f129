"""Boxes of answers, against what the training data draws and says."""

from random import Random

import pytest

from tessera_client import Box, boxes
from training.tasks.scenes import box, draw_size
from training.world import draw_scene

FORMAL = "<|object_ref_start|>the cup<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("control_tokens", [True, False])
def test_a_drawn_things_box_comes_back_in_pixels(seed: int, control_tokens: bool) -> None:
    rng = Random(seed)
    scene = draw_scene(rng, draw_size(rng, (1, 1, 1, 1)), 1)
    thing = scene.things[0]
    answer = box(scene, thing)
    if not control_tokens:
        for token in ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"):
            answer = answer.replace(token, "")
    (found,) = boxes(answer, width=scene.size.width, height=scene.size.height)
    assert found.label == thing.name
    truth = (thing.left, thing.top, thing.left + thing.width, thing.top + thing.height)
    extents = (scene.size.width, scene.size.height) * 2
    for side, true, extent in zip((found.left, found.top, found.right, found.bottom), truth, extents, strict=True):
        assert abs(side - true) <= 0.011 * extent  # answers are in hundredths, and end at 99


def test_several_boxes_of_one_label() -> None:
    found = boxes(FORMAL + "<|box_start|>(0,0),(10,10)<|box_end|>", width=1000, height=500)
    assert found == [Box("the cup", 100, 100, 300, 200), Box("the cup", 0, 0, 10, 5)]


def test_several_labels_in_plain_text() -> None:
    found = boxes("Here they are:\na cat(0,0),(500,500), a dog (500, 500), (999, 999).", width=100, height=100)
    assert [each.label for each in found] == ["a cat", "a dog"]


def test_corners_in_any_order_and_beyond_the_edge_stay_boxes() -> None:
    assert boxes("x(900,1200),(100,300)", width=10, height=10) == [Box("x", 1, 3, 9, 10)]


@pytest.mark.parametrize("answer", ["", "A red circle.", "(1,2)", "(a,b),(c,d)", FORMAL.replace("),(", ") and (")])
def test_an_answer_without_boxes_has_none(answer: str) -> None:
    assert boxes(answer, width=10, height=10) == []


def test_corners_in_pixels_as_the_model_sees_them_become_pixels_of_the_image_sent() -> None:
    answer = (
        '```json\n[{"bbox_2d": [28, 56, 140, 280], "label": "a \\"red\\" cup"}, {"bbox_2d": [0, 0, 280, 560]}]\n```'
    )
    assert boxes(answer, width=2800, height=1120, extent=(280, 560)) == [
        Box('a "red" cup', 280, 112, 1400, 560),
        Box("", 0, 0, 2800, 1120),
    ]


def test_qwen_vls_own_tags() -> None:
    answer = "<ref>the cup</ref><box>(100,200),(300,400)</box><box>(0,0),(10,10)</box>"
    assert boxes(answer, width=1000, height=500) == [Box("the cup", 100, 100, 300, 200), Box("the cup", 0, 0, 10, 5)]


@pytest.mark.parametrize("written", ["[1, 2, 3]", '"1, 2, 3, 4"', "[1, 2, 3, null]", "[1, 2, 3, 4"])
def test_json_that_is_no_box_is_none(written: str) -> None:
    assert boxes(f'{{"bbox_2d": {written}, "label": "x"}}', width=10, height=10) == []
