"""Scenes are drawn where they say, and what is asked about them is true."""

import json
import re
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from model_executor.processor.geometry import Size
from training.data import ask
from training.drawing import draw
from training.judge import is_right
from training.tasks import chinese
from training.tasks.scenes import QUESTIONS, box, caption
from training.world import CELLS, COLORS, SHAPES, SMALL_BELOW, Scene, draw_scene

SIZES = (Size(120, 150), Size(84, 84), Size(224, 224), Size(90, 250), Size(448, 400))
SCENES = [draw_scene(Random(seed), SIZES[seed % 5], seed % 9, neat=seed % 7 == 0) for seed in range(150)]


@pytest.mark.parametrize("scene", SCENES[:60])
def test_a_thing_lies_in_its_box_and_touches_all_four_sides(scene: Scene) -> None:
    for index, thing in enumerate(scene.things):
        with_it = draw(replace(scene, things=(thing,))).astype(int)
        changed = abs(with_it - draw(replace(scene, things=())).astype(int)).sum(-1) > 30
        rows, columns = np.nonzero(changed)
        assert len(rows), index
        slack = 2.5 + 0.03 * thing.width  # a pixel of the grid, half a line, and what a hand strays
        assert abs(columns.min() - thing.left) <= slack and abs(columns.max() + 1 - thing.left - thing.width) <= slack
        assert abs(rows.min() - thing.top) <= slack and abs(rows.max() + 1 - thing.top - thing.height) <= slack


@pytest.mark.parametrize("scene", SCENES)
def test_words_for_size_and_place_follow_the_box(scene: Scene) -> None:
    for thing in scene.things:
        share = max(thing.width, thing.height) / min(scene.size.height, scene.size.width)
        assert thing.size == ("small" if share < SMALL_BELOW else "large")
        x, y = (
            (thing.left + thing.width / 2) / scene.size.width,
            (thing.top + thing.height / 2) / scene.size.height,
        )
        assert thing.cell == int(y * 3) * 3 + int(x * 3)
        assert len(thing.cells) == 1 or min(abs(x - 1 / 3), abs(x - 2 / 3), abs(y - 1 / 3), abs(y - 2 / 3)) < 0.03
        assert min(thing.left, thing.top) >= 0
        assert thing.left + thing.width <= scene.size.width and thing.top + thing.height <= scene.size.height


def test_things_cover_at_most_a_third_of_one_another() -> None:
    for scene in SCENES:
        for number, a in enumerate(scene.things):
            for b in scene.things[number + 1 :]:
                wide = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
                high = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
                shared = max(0.0, wide) * max(0.0, high)
                assert shared <= 0.5 * min(a.width * a.height, b.width * b.height)
                assert not shared or a.color != b.color


@pytest.mark.parametrize("kind", QUESTIONS)
def test_answers_are_true_of_the_scene(kind: str) -> None:
    for number, scene in enumerate(SCENES):
        for asked in ask(Random(number), scene, [kind], 0):
            _check(scene, asked.task, asked.question, asked.answer)
            assert is_right(asked, asked.answer)


def _check(scene: Scene, task: str, question: str, answer: str) -> None:
    """An oracle of its own: it reads the question's words, not the generator's choices."""
    words = set(re.findall(r"[a-z]+", question))
    color = next((name for name in COLORS if name in words), None)
    shape = next((name for name in SHAPES if {name, name + "s", name + "es"} & words), None)
    named = sorted(CELLS, key=len, reverse=True)
    cell = next((name for name in named if re.search(rf"the {name}\b", question)), None)
    fitting = [
        thing
        for thing in scene.things
        if (color is None or thing.color == color)
        and (shape is None or thing.shape == shape)
        and (cell is None or CELLS[thing.cell] == cell)
    ]
    match task:
        case "color":
            assert [thing.color for thing in fitting] == [answer]
        case "shape":
            assert [thing.shape for thing in fitting] == [answer]
        case "size":
            assert [thing.size for thing in fitting] == [answer]
        case "position":
            assert [CELLS[thing.cell] for thing in fitting] == [answer]
        case "count":
            listed = ", ".join(CELLS[thing.cell] for thing in fitting)
            assert (f"{listed}: {len(fitting)}" if fitting else "0") == answer
        case "exists":
            assert answer == ("yes" if fitting else "no")
        case "what is at":
            assert answer == (f"a {fitting[0].size} {fitting[0].name}" if fitting else "nothing")
        case "background":
            assert answer == scene.background.name
        case "grounding":
            assert answer == box(scene, fitting[0]) and len(fitting) == 1
        case "form":
            (thing,) = scene.things
            told = json.loads(answer)
            asked = [key for key in ("color", "shape", "size", "position") if key in words] or ["color", "shape"]
            assert sorted(told) == sorted(asked)
            true = {"color": thing.color, "shape": thing.shape, "size": thing.size, "position": CELLS[thing.cell]}
            assert told == {key: true[key] for key in told}
        case "caption":
            assert answer == caption(scene) and len(answer.split(",")) == max(1, len(scene.things))
        case _:
            assert task == "outside"


def test_a_box_is_relative_to_a_thousand() -> None:
    scene = next(scene for scene in SCENES if len(scene.things) == 1)
    thing = scene.things[0]
    x1, y1, x2, y2 = (int(value) for value in re.findall(r"\d+", box(scene, thing)))
    assert abs(x1 - 1000 * thing.left / scene.size.width) <= 10
    assert abs(y2 - 1000 * (thing.top + thing.height) / scene.size.height) <= 10
    assert 0 <= x1 < x2 < 1000 and 0 <= y1 < y2 < 1000


@pytest.mark.parametrize("kind", chinese.QUESTIONS)
def test_chinese_questions_have_the_same_answers(kind: str) -> None:
    shapes = {said: name for name, said in chinese.SHAPES.items()}
    colors = {said: name for name, said in chinese.COLORS.items()}
    for number, scene in enumerate(SCENES):
        for asked in ask(Random(number), scene, [kind], 1):
            assert asked.task == f"{kind}, Chinese" and is_right(asked, asked.answer)
            color = next((name for said, name in colors.items() if said in asked.question), None)
            shape = next((name for said, name in shapes.items() if said in asked.question), None)
            fitting = [t for t in scene.things if color in (None, t.color) and shape in (None, t.shape)]
            match kind:
                case "color":
                    assert [thing.color for thing in fitting] == [colors[asked.answer]]
                case "shape":
                    assert [thing.shape for thing in fitting] == [shapes[asked.answer]]
                case "position":
                    assert [thing.cell for thing in fitting] == [chinese.CELLS.index(asked.answer)]
                case "count":
                    assert int(asked.answer.rpartition("：")[2]) == len(fitting)
                case "exists":
                    assert (asked.answer == "有") == bool(fitting)
                case "caption":
                    said = [] if asked.answer == "什么都没有。" else asked.answer.rstrip("。").split("，")
                    assert len(said) == len(scene.things)
                    for phrase, thing in zip(said, scene.things, strict=True):
                        assert chinese.COLORS[thing.color] in phrase and phrase.endswith(chinese.SHAPES[thing.shape])
