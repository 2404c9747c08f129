"""What the model learns from: seeded, true of the drawn scene, rendered as the server renders."""

import itertools
import json
import re
from random import Random

import numpy as np
import pytest

from model_executor.processor.geometry import Size
from training.data import draw_sample
from training.drawing import draw, draw_digit
from training.recipe import FULL, UNDERSTAND
from training.sample import Medium, picture
from training.tasks.compare import pair_sample
from training.tasks.scenes import QUESTIONS, ask, box, caption
from training.tasks.videos import DIRECTIONS, appearance, blinking, change, motion
from training.world import CELLS, COLORS, SHAPES, Scene, draw_scene

SCENES = [draw_scene(Random(seed), Size(120, 150), 1 + seed % 6) for seed in range(60)]


def test_equal_seeds_give_equal_samples_and_others_do_not() -> None:
    first, again, other = (draw_sample(UNDERSTAND, seed) for seed in ("7", "7", "8"))
    assert first.exchanges == again.exchanges
    for mine, yours in zip(first.media, again.media, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine.frames, yours.frames, strict=True))
    assert first.exchanges != other.exchanges


def test_every_kind_of_sample_of_the_recipe_can_be_drawn() -> None:
    for stage in FULL.stages:
        tasks = {exchange.task for seed in range(150) for exchange in draw_sample(stage, str(seed)).exchanges}
        assert {"number", "word"} <= tasks
        if "clip" in stage.samples:
            assert {"motion", "order", "second", "comparison", "handwriting", "talk", "photo", "count"} <= tasks


@pytest.mark.parametrize("scene", SCENES[:20])
def test_a_things_color_lies_where_the_scene_says(scene: Scene) -> None:
    pixels = draw(scene).astype(int)
    for thing in scene.things:
        top, left, side = int(thing.top), int(thing.left), int(thing.diameter)
        inside = pixels[top : top + side, left : left + side]
        assert (abs(inside - np.array(thing.rgb)).sum(-1) == 0).mean() > 0.2
        middle = (
            (thing.left + thing.diameter / 2) / scene.size.width,
            (thing.top + thing.diameter / 2) / scene.size.height,
        )
        assert thing.cell == int(middle[1] * 3) * 3 + int(middle[0] * 3)


@pytest.mark.parametrize("kind", QUESTIONS)
def test_answers_are_true_of_the_scene(kind: str) -> None:
    for number, scene in enumerate(SCENES):
        for asked in ask(Random(number), scene, [kind]):
            _check(scene, asked.task, asked.question, asked.answer)


def _check(scene: Scene, task: str, question: str, answer: str) -> None:
    """An oracle of its own: it reads the question's words, not the generator's choices."""
    words = set(re.findall(r"[a-z]+", question))
    color = next((name for name in COLORS if name in words), None)
    shape = next((name for name in SHAPES if {name, name + "s", name + "es"} & words), None)
    cell = next((name for name in sorted(CELLS, key=len, reverse=True) if re.search(rf"the {name}\b", question)), None)
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
            assert answer == scene.background
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
            assert answer == caption(scene) and len(answer.split(",")) == len(scene.things)
        case _:
            assert task == "outside"


def test_a_box_is_relative_to_a_thousand() -> None:
    scene = next(scene for scene in SCENES if len(scene.things) == 1)
    thing = scene.things[0]
    x1, y1, x2, y2 = (int(value) for value in re.findall(r"\d+", box(scene, thing)))
    assert abs(x1 - 1000 * thing.left / scene.size.width) <= 10
    assert abs(y2 - 1000 * (thing.top + thing.diameter) / scene.size.height) <= 10
    assert 0 <= x1 < x2 < 1000 and 0 <= y1 < y2 < 1000


def _centre(frame: np.ndarray) -> np.ndarray:
    """Middle (x, y) of what differs from the background."""
    rows, columns = np.nonzero(abs(frame.astype(int) - frame[0, 0].astype(int)).sum(-1) > 60)
    return np.array([columns.mean(), rows.mean()])


def test_motion_goes_where_the_answer_says() -> None:
    for seed in range(40):
        medium, asked = motion(Random(seed), 8)
        said = next(item.answer for item in asked if item.task == "motion")
        travelled = _centre(medium.frames[-1]) - _centre(medium.frames[0])
        if said == "nowhere":
            assert abs(travelled).max() < 4
        else:
            assert travelled @ np.array(DIRECTIONS[said]) > 8


def test_something_appears_or_changes_at_the_second_said() -> None:
    for seed in range(40):
        make = appearance if seed % 2 else change
        medium, asked = make(Random(seed), 10)
        if make is appearance:
            seconds = [int(second) for second in re.findall(r"second (\d+)", asked[0].answer)]
            assert next(item for item in asked if item.task == "second").answer in map(str, seconds)
            assert medium.regions is not None
            told = [medium.regions[region].slice for _, region in asked[0].targets]
            assert told == seconds and next(item.targets for item in asked if item.task == "order") == asked[0].targets
            seconds = [second for second in seconds if second > 0]
        else:
            seconds = [int(next(item for item in asked if item.task == "second").answer)]
        changed = [i for i in range(1, 10) if not np.array_equal(medium.frames[i], medium.frames[i - 1])]
        assert changed == [2 * second for second in seconds]


def test_blinks_are_counted() -> None:
    for seed in range(20):
        medium, asked = blinking(Random(seed))
        empty = medium.frames[0]
        shown = [not np.array_equal(frame, empty) for frame in medium.frames]
        starts = sum(now and not before for before, now in itertools.pairwise(shown))
        assert asked[0].answer == str(starts)


def test_comparisons_are_true_of_two_or_three_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Scene] = []

    def instead(rng: Random, scene: Scene) -> Medium:
        drawn.append(scene)
        return picture(np.zeros((1, 1, 3), np.uint8))

    monkeypatch.setattr("training.tasks.compare.scene_picture", instead)
    seen = set()
    for seed in range(80):
        drawn.clear()
        media, asked = pair_sample(Random(seed), (1, 0, 0, 0), twins=0.6)
        assert len(media) == len(drawn) in (2, 3)
        for item in asked:
            seen.add((len(media), re.sub(r" an? [a-z]+ [a-z]+\?", "", item.question)))
            _check_comparison(drawn, item.question, item.answer)
    assert len(seen) >= 12


def _check_comparison(scenes: list[Scene], question: str, answer: str) -> None:
    ordinals = ("first", "second", "third")
    words = set(re.findall(r"[a-z]+", question))
    counts = [len(scene.things) for scene in scenes]
    if "Describe" in question:
        assert answer == caption(scenes[next(i for i, name in enumerate(ordinals) if name in words)])
    elif "same" in words:
        first, second = (scene.things[0] for scene in scenes)
        attribute = "color" if "color" in words else "shape"
        both = getattr(first, attribute), getattr(second, attribute)
        assert answer == f"{both[0]}, {both[1]}: {'yes' if both[0] == both[1] else 'no'}"
    elif "more" in words or "most" in words:
        most = [name for name, count in zip(ordinals, counts, strict=False) if count == max(counts)]
        verdict = f"the {most[0]}" if len(most) == 1 else "both the same"
        assert answer == f"{', '.join(map(str, counts))}: {verdict}"
    else:
        shows = [any(set(thing.name.split()) <= words for thing in scene.things) for scene in scenes]
        assert [f"the {name}" for name, shown in zip(ordinals, shows, strict=False) if shown] == [answer]


def test_held_out_scans_are_not_trained_on() -> None:
    trained = {draw_digit(Random(seed), 8, held_out=False)[0].tobytes() for seed in range(200)}
    held = {draw_digit(Random(seed), 8, held_out=True)[0].tobytes() for seed in range(200)}
    assert not trained & held
