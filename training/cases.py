"""Held-out questions by task: drawn as training draws, from seeds, scans and photographs that it never sees."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from model_executor.processor.geometry import Size
from training.data import draw_sample
from training.recipe import Stage
from training.sample import Asked, Exchange, Media, converse, image
from training.tasks.scenes import box, caption, caption_phrases
from training.tasks.videos import FRAMES_PER_SECOND, appearance, motion
from training.world import COLORS, Background, Place, Scene, make_thing

_SCENE = (
    "caption",
    "color",
    "shape",
    "position",
    "size",
    "count",
    "what is at",
    "exists",
    "grounding",
    "form",
    "background",
    "outside",
)
_CHINESE = ("caption", "color", "shape", "position", "count", "exists", "outside")
KIND_OF_TASK = {
    **dict.fromkeys(_SCENE, "scene"),
    **{f"{task}, Chinese": "scene" for task in _CHINESE},
    **dict.fromkeys(("word", "lower-case word", "mixed-case word", "lines", "number"), "reading"),
    **dict.fromkeys(("comparison", "one of several"), "pair"),
    **dict.fromkeys(("motion", "two motions", "order", "second", "change", "blinking", "cuts"), "video"),
    "video caption": "video",
    **dict.fromkeys(("handwriting", "handwritten number"), "handwriting"),
    **dict.fromkeys(("talk", "talk, Chinese"), "talk"),
    **dict.fromkeys(("photo", "photo, Chinese", "screen or page"), "outside"),
}
"""The tasks that are measured, and the kind of sample each is found in."""
NEAT_TASKS = _SCENE
"""Those that are measured on neat scenes, too (`Stage.neat`)."""
LONG_SECONDS = (5, 10, 20, 40)
QUARTER_SIDES = (84, 112, 168, 224, 336, 448)


@dataclass(frozen=True, slots=True)
class Case:
    """One held-out question."""

    media: tuple[Media, ...]
    exchange: Exchange


def cases(stage: Stage, task: str, number: int) -> Iterator[Case]:
    """`number` held-out cases of a task, drawn as the stage draws; never seen in training."""
    only = replace(stage, samples={KIND_OF_TASK[task]: 1.0})
    if task.endswith("Chinese"):
        only = replace(only, chinese=1.0)
    found = seed = 0
    while found < number:
        sample = draw_sample(only, f"{task} {seed}", "held-out")
        seed += 1
        fitting = [exchange for exchange in sample.exchanges if exchange.task == task]
        if fitting:
            found += 1
            yield Case(sample.media, fitting[seed % len(fitting)])


def neat(stage: Stage) -> Stage:
    """The stage with neat scenes only, of one to six things, none larger than 330 px."""
    return replace(stage, neat=1.0, things=(0, 2, 1, 1, 1, 1, 1), sizes=(0.5, 0.3, 0.0, 0.2))


def long_cases(task: str, seconds: int, number: int) -> Iterator[Case]:
    """Cases of `motion` or `order` on videos of that length."""
    make: dict[str, Callable[[Random, int], tuple[Media, list[Asked]]]] = {"motion": motion, "order": appearance}
    found = seed = 0
    while found < number:
        item, asked = make[task](Random(f"long {task} {seconds} {seed}"), seconds * FRAMES_PER_SECOND)
        seed += 1
        exchanges = converse((item,), asked, system=None, media_first=True).exchanges
        fitting = [exchange for exchange in exchanges if exchange.task == task]
        if fitting:
            found += 1
            yield Case((item,), fitting[0])


def quarters(side: int, number: int) -> Iterator[tuple[Media, list[Exchange]]]:
    """White images with a thing in each quarter, drawn with nothing but Pillow: a caption and four boxes are asked."""
    rng = Random(f"quarters {side}")
    background = Background("white", (255, 255, 255))
    shades = {color: next(iter(named)) for color, named in COLORS.items() if color != "white"}
    for _ in range(number):
        canvas = Image.new("RGB", (side, side), "white")
        pen, half, things = ImageDraw.Draw(canvas), side / 2, []
        for quarter, color in enumerate(rng.sample(list(shades), 4)):
            width = half * rng.uniform(0.4, 0.8)
            left = quarter % 2 * half + (half - width) * rng.uniform(0.2, 0.8)
            top = quarter // 2 * half + (half - width) * rng.uniform(0.2, 0.8)
            shape = rng.choice(list(_PLAINLY))
            _PLAINLY[shape](pen, (left, top, width, width), shades[color])
            things.append(make_thing(Size(side, side), color, shape, shades[color], (left, top, width, width)))
        scene = Scene(Size(side, side), background, tuple(sorted(things, key=lambda thing: thing.cell)))
        asked = [Asked("caption", "What do you see?", caption(scene), (), caption_phrases(scene))]
        asked += [Asked("grounding", f"Find the {thing.name}.", box(scene, thing)) for thing in things]
        item = image(np.asarray(canvas))
        yield item, list(converse((item,), asked, system=None, media_first=True).exchanges)


def _polygon(*corners: tuple[float, float]) -> Callable[[ImageDraw.ImageDraw, Place, tuple[int, int, int]], None]:
    def fill(pen: ImageDraw.ImageDraw, place: Place, rgb: tuple[int, int, int]) -> None:
        left, top, width, height = place
        pen.polygon([(left + x * width, top + y * height) for x, y in corners], fill=rgb)

    return fill


def _ellipse(pen: ImageDraw.ImageDraw, place: Place, rgb: tuple[int, int, int]) -> None:
    left, top, width, height = place
    pen.ellipse((left, top, left + width, top + height), fill=rgb)


def _ring(pen: ImageDraw.ImageDraw, place: Place, rgb: tuple[int, int, int]) -> None:
    left, top, width, height = place
    pen.ellipse((left, top, left + width, top + height), outline=rgb, width=max(3, int(width / 5)))


_PLAINLY: dict[str, Callable[[ImageDraw.ImageDraw, Place, tuple[int, int, int]], None]] = {
    "circle": _ellipse,
    "ring": _ring,
    "square": _polygon((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": _polygon((0.5, 0), (1, 1), (0, 1)),
    "diamond": _polygon((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),
}
