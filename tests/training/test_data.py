"""What the model learns from: seeded, true of what is drawn."""

import itertools
import re
from random import Random

import numpy as np
import pytest

from training.backgrounds import photographs
from training.data import draw_sample
from training.drawing import draw_digits
from training.judge import is_right
from training.recipe import FULL, UNDERSTAND
from training.sample import Media, image
from training.tasks.compare import pair_sample
from training.tasks.photos import outside_sample
from training.tasks.reading import print_sample
from training.tasks.scenes import OUTSIDE, caption
from training.tasks.videos import DIRECTIONS, appearance, blinking, change, cuts, motion
from training.wording import vary
from training.world import COLORS, Scene


def test_equal_seeds_give_equal_samples_and_others_do_not() -> None:
    first, again, other = (draw_sample(UNDERSTAND, seed) for seed in ("7", "7", "8"))
    assert first.exchanges == again.exchanges
    for mine, yours in zip(first.media, again.media, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine.frames, yours.frames, strict=True))
    assert first.exchanges != other.exchanges


@pytest.mark.slow
def test_every_kind_of_sample_of_the_recipe_can_be_drawn() -> None:
    for stage in FULL.stages:
        tasks = {exchange.task for seed in range(200) for exchange in draw_sample(stage, str(seed)).exchanges}
        assert {"number", "word", "lower-case word"} <= tasks
        if "video" in stage.samples:
            assert {"motion", "order", "second", "comparison", "handwriting", "talk", "photo", "count"} <= tasks


def test_true_answers_are_right() -> None:
    for seed in range(300):
        for exchange in draw_sample(UNDERSTAND, f"right {seed}").exchanges:
            assert is_right(exchange.asked, exchange.answer), exchange.asked


def _center(frame: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Middle (x, y) of what differs most from the background, which the frames' median shows."""
    difference = abs(frame.astype(int) - empty.astype(int)).sum(-1)
    rows, columns = np.nonzero(difference > difference.max() / 2)
    return np.array([columns.mean(), rows.mean()])


def test_motion_goes_where_the_answer_says() -> None:
    for seed in range(60):
        item, asked = motion(Random(seed), 12)
        said = next(one.answer for one in asked if "motion" in one.task).split(", then ")
        empty = np.median(np.stack(item.frames), axis=0)
        if said == ["nowhere"]:
            assert all(np.array_equal(frame, item.frames[0]) for frame in item.frames)
            continue
        assert item.regions is not None
        middles = np.array([((r.left + r.right) / 2, (r.top + r.bottom) / 2) for r in item.regions])
        half = len(middles) // len(said)
        for leg, way in enumerate(said):
            part = middles[leg * half : (leg + 1) * half]
            gone, other = (part[-1] - part[0]) @ np.array(DIRECTIONS[way]), abs(part[-1] - part[0]).sum()
            assert gone > 6 and gone > 0.7 * other, (seed, said, middles)
        assert abs(_center(item.frames[0], empty) - middles[0]).max() < 20 or len(set(map(tuple, middles))) < 3


def test_something_appears_or_changes_at_the_second_said() -> None:
    for seed in range(60):
        make = (appearance, change, cuts)[seed % 3]
        item, asked = make(Random(seed), 14)
        changed = [i for i in range(1, 14) if not np.array_equal(item.frames[i], item.frames[i - 1])]
        if make is cuts:
            assert next(one.answer for one in asked if one.task == "cuts") == str(len(changed) + 1)
            assert str(next(one.answer for one in asked if one.task == "second")) in {str(i // 2) for i in changed}
            continue
        seconds = [int(second) for second in re.findall(r"second (\d+)", asked[0].answer)]
        assert [second for second in seconds if second > 0] == [i // 2 for i in changed]
        assert item.regions is not None
        told = [item.regions[region].slice for _, region in asked[0].targets]
        assert all(0 <= slice_ - second <= 1 for slice_, second in zip(told, seconds, strict=True))


def test_blinks_are_counted() -> None:
    for seed in range(30):
        item, asked = blinking(Random(seed))
        empty = item.frames[0].astype(int)
        shown = [bool((abs(frame - empty).sum(-1) > 90).sum() > 8) for frame in item.frames]
        starts = sum(now and not before for before, now in itertools.pairwise(shown))
        assert asked[0].answer == str(starts)


def test_every_character_is_read_where_it_stands() -> None:
    for seed in range(60):
        item, (asked,) = print_sample(Random(seed), (0, 1, 1, 1, 1), words=0.8)
        assert item.regions is not None and len(asked.targets) == len(asked.answer)
        for character, (_, region) in zip(asked.answer, asked.targets, strict=True):
            assert character == "\n" or item.regions[region].symbol == character
        height, width = item.frames[0].shape[:2]
        for lies in item.regions:
            assert -3 <= lies.left < lies.right <= width + 3 and -3 <= lies.top < lies.bottom <= height + 3


def test_comparisons_are_true_of_two_or_three_images(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Scene] = []

    def instead(rng: Random, scene: Scene) -> Media:
        drawn.append(scene)
        return image(np.zeros((1, 1, 3), np.uint8))

    monkeypatch.setattr("training.tasks.compare.scene_image", instead)
    seen = set()
    for seed in range(80):
        drawn.clear()
        media, asked = pair_sample(Random(seed), (1, 0, 0, 0), twins=0.6)
        assert len(media) == len(drawn) in (2, 3)
        for item in asked:
            seen.add((len(media), re.sub(r" an? [a-z]+ [a-z]+\?", "", item.question)))
            _check_comparison(drawn, item.task, item.question, item.answer)
    assert len(seen) >= 12


def _check_comparison(scenes: list[Scene], task: str, question: str, answer: str) -> None:
    ordinals = ("first", "second", "third")
    words = set(re.findall(r"[a-z]+", question))
    counts = [len(scene.things) for scene in scenes]
    if task == "one of several":
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


def test_held_out_scans_and_photographs_are_not_trained_on() -> None:
    trained = {draw_digits(Random(seed), 1, 8, held_out=False)[0].tobytes() for seed in range(200)}
    held = {draw_digits(Random(seed), 1, 8, held_out=True)[0].tobytes() for seed in range(200)}
    assert not trained & held
    assert not {photo.tobytes() for photo in photographs("training")} & {p.tobytes() for p in photographs("held-out")}


def test_what_is_outside_is_owned_up_to() -> None:
    for seed in range(60):
        item, asked = outside_sample(Random(seed), (1, 1, 0, 1), "held-out")
        assert item.regions == () and all(one.answer == OUTSIDE or "Chinese" in one.task for one in asked)


def test_a_slip_leaves_colors_and_counts_of_words_alone() -> None:
    question = "How many red circles are in the picture?"
    said = {vary(Random(seed), question) for seed in range(300)}
    assert len(said) > 20 and question in said
    assert all("red" in one.lower() for one in said)
    assert set(COLORS) >= {"red"}
