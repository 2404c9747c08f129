"""The little world the bundled model knows: coloured shapes on plain backgrounds, and the words for them.

What it does: scenes as plain values, drawn at random from a seeded generator. What it does not: pixels
(`training/drawing.py`) or sentences (`training/scenes.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from model_executor.processor.geometry import Size

Rgb = tuple[int, int, int]

COLORS: dict[str, Rgb] = {
    "red": (220, 35, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 225),
    "yellow": (242, 215, 40),
    "orange": (246, 140, 30),
    "purple": (135, 55, 180),
    "pink": (247, 150, 195),
    "brown": (128, 78, 40),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
}
BACKGROUNDS: dict[str, Rgb] = {"white": (252, 252, 252), "black": (8, 8, 8), "gray": (150, 150, 150)}
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "heart")
SIZES = ("small", "large")
_BACKGROUND_WEIGHTS = (5, 2, 3)
CELLS = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
"""Names of the nine cells of a picture cut in thirds, in reading order."""

_SMALL, _LARGE, _HUGE = (0.48, 0.58), (0.80, 0.98), (0.45, 0.85)
"""Diameters: of a cell's shorter side, or (huge) of the picture's."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape: what it is, which cell it lies in, and its box in source pixels."""

    color: str
    shape: str
    size: str
    cell: int
    left: float
    top: float
    diameter: float
    rgb: Rgb

    @property
    def name(self) -> str:
        """`red circle`."""
        return f"{self.color} {self.shape}"


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture before it is drawn: its size in pixels, its background, and its things in reading order."""

    size: Size
    background: str
    background_rgb: Rgb
    things: tuple[Thing, ...]

    def unique(self, attribute: str) -> list[Thing]:
        """The things that no other thing shares `attribute` (`color`, `shape`, `name`) with."""
        values = [getattr(thing, attribute) for thing in self.things]
        return [thing for thing, value in zip(self.things, values, strict=True) if values.count(value) == 1]


def indefinite(noun: str) -> str:
    """`a red circle`, `an orange star`."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def jitter(rgb: Rgb, rng: Random, spread: int = 12) -> Rgb:
    """A shade near `rgb`, each channel within `spread` and 0..255."""
    red, green, blue = (min(255, max(0, channel + rng.randint(-spread, spread))) for channel in rgb)
    return red, green, blue


def draw_background(
    rng: Random, colors: tuple[str, ...], weights: Sequence[float] = _BACKGROUND_WEIGHTS
) -> tuple[str, Rgb]:
    """A background, by the weights of white, black and gray, on which every one of `colors` can be seen."""
    name = rng.choices(list(BACKGROUNDS), weights)[0]
    if name in colors:
        name = "gray"
    return name, jitter(BACKGROUNDS[name], rng, 4 if name != "gray" else 15)


def place(rng: Random, size: Size, cell: int, extent: str) -> tuple[float, float, float]:
    """Left, top and diameter in pixels of a thing of `extent` somewhere inside `cell`."""
    cell_height, cell_width = size.height / 3, size.width / 3
    diameter = min(cell_height, cell_width) * rng.uniform(*(_SMALL if extent == "small" else _LARGE))
    left = (cell % 3) * cell_width + rng.random() * (cell_width - diameter)
    top = (cell // 3) * cell_height + rng.random() * (cell_height - diameter)
    return left, top, diameter


def draw_thing(rng: Random, size: Size, cell: int, color: str, shape: str) -> Thing:
    """A thing of random extent in `cell`."""
    extent = rng.choice(SIZES)
    return Thing(color, shape, extent, cell, *place(rng, size, cell, extent), jitter(COLORS[color], rng))


def draw_scene(rng: Random, size: Size, num_things: int, backgrounds: Sequence[float] = _BACKGROUND_WEIGHTS) -> Scene:
    """A random scene; in half of them colours or shapes repeat, so that counting needs a look."""
    if num_things == 1 and rng.random() < 0.3:
        return _one_huge(rng, size, backgrounds)
    colors, shapes = list(COLORS), list(SHAPES)
    if rng.random() < 0.3:
        colors = rng.sample(colors, 2)
    if rng.random() < 0.3:
        shapes = rng.sample(shapes, 2)
    cells = sorted(rng.sample(range(len(CELLS)), num_things))
    things = tuple(draw_thing(rng, size, cell, rng.choice(colors), rng.choice(shapes)) for cell in cells)
    name, rgb = draw_background(rng, tuple(thing.color for thing in things), backgrounds)
    return Scene(size, name, rgb, things)


def _one_huge(rng: Random, size: Size, backgrounds: Sequence[float]) -> Scene:
    """One thing larger than a cell around the middle, as people draw them."""
    diameter = min(size.height, size.width) * rng.uniform(*_HUGE)
    left = (size.width - diameter) / 2 + rng.uniform(-0.06, 0.06) * diameter
    top = (size.height - diameter) / 2 + rng.uniform(-0.06, 0.06) * diameter
    color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
    thing = Thing(color, shape, "large", 4, left, top, diameter, jitter(COLORS[color], rng))
    return Scene(size, *draw_background(rng, (color,), backgrounds), (thing,))
