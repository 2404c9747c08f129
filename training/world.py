"""The little world the bundled model knows: colored shapes on backgrounds, and the words for them.

What it does: scenes as plain values, drawn at random from a seeded generator. What it does not: pixels
(`training/drawing.py`) or sentences (`training/tasks/`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from model_executor.processor.geometry import Size

Rgb = tuple[int, int, int]
Place = tuple[float, float, float, float]
"""Left, top, width and height in source pixels."""

COLORS: dict[str, tuple[Rgb, ...]] = {
    "red": ((220, 35, 40), (255, 0, 0), (214, 39, 40), (239, 68, 68), (200, 20, 30)),
    "green": ((40, 160, 60), (0, 128, 0), (0, 255, 0), (44, 160, 44), (34, 197, 94), (20, 110, 40)),
    "blue": ((40, 80, 225), (0, 0, 255), (31, 119, 180), (59, 130, 246), (25, 50, 160)),
    "yellow": ((242, 215, 40), (255, 255, 0), (250, 204, 21), (255, 235, 59)),
    "orange": ((246, 140, 30), (255, 165, 0), (255, 127, 14), (249, 115, 22)),
    "purple": ((135, 55, 180), (128, 0, 128), (148, 103, 189), (168, 85, 247)),
    "pink": ((247, 150, 195), (255, 192, 203), (255, 105, 180), (227, 119, 194)),
    "brown": ((128, 78, 40), (165, 42, 42), (140, 86, 75), (120, 63, 20), (139, 69, 19)),
    "black": ((15, 15, 15), (0, 0, 0), (32, 32, 36)),
    "white": ((250, 250, 250), (255, 255, 255)),
    "gray": ((150, 150, 150), (128, 128, 128), (107, 114, 128)),
}
"""Each color's shades: the project's own, and those of CSS, matplotlib and other drawing programs."""
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "heart")
SIZES = ("small", "large")
CELLS = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
"""Names of the nine cells of an image cut in thirds, in reading order."""
MAX_THINGS = 8
SMALL_BELOW = 0.23
"""Share of the image's shorter side below which a thing is small."""
_UNSURE_SIZE, _UNSURE_CELL = 0.04, 0.03
"""How near to a border (shares of a side) both words are right."""
_LEAST_PX = 9
_LARGEST = (0.9, 0.6, 0.5, 0.42, 0.36, 0.33, 0.3, 0.28)
"""By number of things: the largest share of the shorter side."""
_CONTRAST = 75.0
"""Least distance in RGB between a thing and what is behind it."""
Layout = Literal["cells", "grid", "free"]
LAYOUTS: dict[Layout, float] = {"cells": 0.3, "grid": 0.25, "free": 0.45}
_OVERLAPPING = 0.35
"""Share of free layouts in which things may cover up to a third of one another."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a thing is drawn."""

    filled: bool = True
    outline: Rgb | None = None
    """Color of the line around it; its own if it is not filled."""
    stroke: float = 0.0
    """Width of the line, as a share of the thing's width."""
    smooth: bool = True
    angle: float = 0.0
    """Degrees it is turned by."""
    wobble: float = 0.0
    """How far a drawing hand strays, as a share of the thing's width."""
    form: float = 0.5
    """0..1: thin or thick, slender or plump, where the shape allows both."""
    fade: float = 0.0
    """How much darker it is at the bottom than at the top; 0..1."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape: what it is, where it lies in source pixels, and what it may be called."""

    color: str
    shape: str
    left: float
    top: float
    width: float
    height: float
    rgb: Rgb
    sizes: tuple[str, ...]
    """Its size in words; near the border the other word comes second."""
    cells: tuple[int, ...]
    """The cell its center lies in; near borders the neighbors follow."""
    look: Look = Look()

    @property
    def name(self) -> str:
        """`red circle`."""
        return f"{self.color} {self.shape}"

    @property
    def size(self) -> str:
        """`small` or `large`."""
        return self.sizes[0]

    @property
    def cell(self) -> int:
        """Index in `CELLS` of where its center lies."""
        return self.cells[0]


@dataclass(frozen=True, slots=True)
class Background:
    """What is behind the things."""

    name: str | None
    """Its color, where one word says it."""
    rgb: Rgb
    kind: Literal["plain", "gradient", "noise", "stripes", "paper", "photo"] = "plain"
    other: Rgb = (0, 0, 0)
    """Where a gradient ends, the second color of stripes, the lines of paper."""
    seed: int = 0
    """Of what is drawn at random, and of which part of which photograph."""
    strength: float = 1.0
    """How much of the photograph is seen through `rgb`."""


@dataclass(frozen=True, slots=True)
class Scene:
    """An image before it is drawn: its size in pixels, its background, and its things in reading order."""

    size: Size
    background: Background
    things: tuple[Thing, ...]

    def unique(self, attribute: str) -> list[Thing]:
        """The things that no other thing shares `attribute` (`color`, `shape`, `name`) with."""
        values = [getattr(thing, attribute) for thing in self.things]
        return [thing for thing, value in zip(self.things, values, strict=True) if values.count(value) == 1]


def indefinite(noun: str) -> str:
    """`a red circle`, `an orange star`."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def jitter(rgb: Rgb, rng: Random, spread: int = 10) -> Rgb:
    """A shade near `rgb`, each channel within `spread` and 0..255."""
    red, green, blue = (min(255, max(0, channel + rng.randint(-spread, spread))) for channel in rgb)
    return red, green, blue


def shade_of(color: str, rng: Random) -> Rgb:
    """A shade that `color` names."""
    return jitter(rng.choice(COLORS[color]), rng)


def distance(first: Rgb, second: Rgb) -> float:
    """Euclidean distance of two colors; 0..442."""
    return float(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5)


def draw_background(rng: Random, *, plain: float = 0.6) -> Background:
    """A background: plain with the chance given, else one of the other kinds."""
    name = rng.choices(("white", "black", "gray", "tint", "color"), (5, 2, 2, 1.5, 1))[0]
    named: str | None = name
    if name == "tint":
        red, green, blue = (255 - (255 - c) // rng.choice((4, 5, 7)) for c in shade_of(_hue(rng), rng))
        named, rgb = None, (red, green, blue)
    elif name == "color":
        named = _hue(rng)
        rgb = shade_of(named, rng)
    else:
        rgb = jitter(COLORS[name][0], rng, 4 if name != "gray" else 15)
    if rng.random() < plain:
        return Background(named, rgb)
    kind = rng.choices(("gradient", "noise", "stripes", "paper", "photo"), (3, 2, 1, 2, 3))[0]
    seed = rng.randrange(1 << 30)
    match kind:
        case "gradient":
            other = jitter(rgb, rng, 25) if rng.random() < 0.5 else shade_of(_hue(rng), rng)
            return Background(None, rgb, "gradient", other, seed)
        case "noise":
            return Background(named, rgb, "noise", rgb, seed, rng.uniform(3, 22))
        case "stripes":
            return Background(None, rgb, "stripes", jitter(rgb, rng, 30), seed)
        case "paper":
            return Background(named, rgb, "paper", jitter(rgb, rng, 45), seed)
        case _:
            return Background(None, rgb, "photo", rgb, seed, rng.uniform(0.25, 0.9))


def _neat_background(rng: Random) -> Background:
    name = rng.choices(("white", "black", "gray"), (5, 2, 3))[0]
    return Background(name, jitter(COLORS[name][0], rng, 4 if name != "gray" else 15))


def _hue(rng: Random) -> str:
    return rng.choice(("red", "green", "blue", "yellow", "orange", "purple", "pink", "brown"))


def can_be_seen(rgb: Rgb, color: str, background: Background) -> bool:
    """Whether something of that color stands out from the background."""
    least = _CONTRAST if background.kind != "photo" else 1.4 * _CONTRAST
    return (
        color != background.name
        and distance(rgb, background.rgb) > least
        and (background.kind not in ("gradient", "stripes") or distance(rgb, background.other) > least)
    )


def draw_color(rng: Random, background: Background, among: Sequence[str] = tuple(COLORS)) -> tuple[str, Rgb]:
    """A color that can be seen on the background, of `among` if any of these can."""
    for attempt in range(60):
        color = rng.choice(among if attempt < 30 else tuple(COLORS))
        rgb = shade_of(color, rng)
        if can_be_seen(rgb, color, background):
            return color, rgb
    return ("white", (255, 255, 255)) if sum(background.rgb) < 380 else ("black", (0, 0, 0))


def draw_look(rng: Random, shape: str, rgb: Rgb, background: Background) -> Look:
    """A way to draw the shape: mostly filled and upright."""
    smooth = rng.random() < 0.6
    angle = 0.0 if rng.random() < 0.6 else rng.gauss(0, 6)
    if shape in ("cross", "triangle") and rng.random() < 0.15:
        angle = 45.0 if shape == "cross" else rng.choice((90.0, 180.0, 270.0))
    wobble = rng.uniform(0.005, 0.016) if rng.random() < 0.12 else 0.0
    form, style = rng.random(), rng.random()
    if style < 0.16 and shape != "ring":
        thin = (0.03, 0.07) if shape in ("circle", "cross") else (0.04, 0.13)
        return Look(False, rgb, rng.uniform(*thin), smooth, angle, wobble, form)
    if style < 0.28 and shape != "ring":
        outline = (0, 0, 0) if sum(rgb) > 200 else (255, 255, 255)
        return Look(True, outline, rng.uniform(0.02, 0.06), smooth, angle, wobble, form)
    fade = rng.uniform(0.1, 0.25) if style > 0.92 else 0.0
    return Look(True, None, 0.0, smooth, angle, wobble, form, fade)


def make_thing(size: Size, color: str, shape: str, rgb: Rgb, place: Place, look: Look = Look()) -> Thing:
    """A thing with the words for its size and its place in an image of `size`."""
    left, top, width, height = place
    share = max(width, height) / min(size.height, size.width)
    sizes = SIZES if share < SMALL_BELOW else SIZES[::-1]
    return Thing(
        color,
        shape,
        left,
        top,
        width,
        height,
        rgb,
        sizes if abs(share - SMALL_BELOW) < _UNSURE_SIZE else sizes[:1],
        _cells((left + width / 2) / size.width, (top + height / 2) / size.height),
        look,
    )


def _cells(x: float, y: float) -> tuple[int, ...]:
    rows, columns = _thirds(y), _thirds(x)
    return tuple(row * 3 + column for row in rows for column in columns)


def _thirds(share: float) -> tuple[int, ...]:
    cell = min(2, max(0, int(share * 3)))
    near = [other for other in (cell - 1, cell + 1) if 0 <= other < 3]
    return (cell, *(o for o in near if abs(share - max(cell, o) / 3) < _UNSURE_CELL))


def place_in_cell(rng: Random, size: Size, cell: int) -> Place:
    """Somewhere inside the cell, small or nearly filling it."""
    high, wide = size.height / 3, size.width / 3
    side = min(high, wide) * rng.uniform(*rng.choice(((0.45, 0.62), (0.78, 0.98))))
    return (cell % 3 * wide + rng.random() * (wide - side), cell // 3 * high + rng.random() * (high - side), side, side)


def draw_place(rng: Random, size: Size, largest: float) -> Place:
    """Anywhere, of any size from a twentieth to `largest` of the shorter side, wholly inside."""
    short = min(size.height, size.width)
    least = max(0.05, _LEAST_PX / short)
    side = short * least * (max(largest, least) / least) ** rng.random()
    return rng.random() * (size.width - side), rng.random() * (size.height - side), side, side


def draw_places(rng: Random, size: Size, number: int, layout: Layout) -> Iterator[Place]:
    """Places of some things; fewer than `number` if there is no room."""
    if layout == "cells":
        if number == 1 and rng.random() < 0.4:
            yield _about_the_middle(rng, size)
        else:
            yield from (place_in_cell(rng, size, cell) for cell in rng.sample(range(len(CELLS)), number))
    elif layout == "grid":
        yield from _on_a_grid(rng, size, number)
    else:
        yield from _freely(rng, size, number)


def _about_the_middle(rng: Random, size: Size) -> Place:
    side = min(size.height, size.width) * rng.uniform(0.3, 0.9)
    x, y = (rng.uniform(-0.06, 0.06) * side for _ in range(2))
    return max(0, (size.width - side) / 2 + x), max(0, (size.height - side) / 2 + y), side, side


def _on_a_grid(rng: Random, size: Size, number: int) -> Iterator[Place]:
    """In rows and columns, as people arrange things: all about as large, in the middle of their boxes or nearly."""
    fitting = [(r, c) for r in (1, 2, 3, 4) for c in (1, 2, 3, 4) if number <= r * c <= 2 * number + 1]
    rows, columns = rng.choice(fitting)
    high, wide = size.height / rows, size.width / columns
    share, spread = rng.uniform(0.35, 0.9), rng.choice((0.0, 0.1, 0.3))
    for box in rng.sample(range(rows * columns), number):
        side = min(high, wide) * min(0.95, share * rng.uniform(1 - spread, 1 + spread))
        slack = rng.choice((0.0, 0.0, 0.5))
        x = box % columns * wide + (wide - side) * (0.5 + rng.uniform(-slack, slack))
        y = box // columns * high + (high - side) * (0.5 + rng.uniform(-slack, slack))
        if side >= _LEAST_PX:
            yield x, y, side, side


def _freely(rng: Random, size: Size, number: int) -> Iterator[Place]:
    overlap = 1 / 3 if rng.random() < _OVERLAPPING else 0.0
    placed: list[Place] = []
    for _ in range(number * 12):
        place = draw_place(rng, size, _LARGEST[number - 1])
        if all(_covered(place, other) <= overlap for other in placed):
            placed.append(place)
            yield place
        if len(placed) == number:
            return


def _covered(first: Place, second: Place) -> float:
    """The shared area as a share of the smaller; below 0 with a gap of less than a tenth of its side left aside."""
    wide = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    high = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    return max(0.0, wide) * max(0.0, high) / min(first[2] * first[3], second[2] * second[3])


def draw_scene(rng: Random, size: Size, num_things: int, *, neat: bool = False) -> Scene:
    """A random scene with up to `num_things` things; often colors or shapes repeat, so that counting needs a look.

    Args:
        rng: where chance comes from.
        size: of the image.
        num_things: at most so many.
        neat: filled, upright things, one to a ninth of the image or one about its middle, on white, black or gray.
    """
    background = draw_background(rng) if not neat else _neat_background(rng)
    colors, shapes = list(COLORS), list(SHAPES)
    if rng.random() < 0.3:
        colors = rng.sample(colors, 2)
    if rng.random() < 0.3:
        shapes = rng.sample(shapes, 2)
    alike = rng.random() < 0.6
    things: list[Thing] = []
    look: Look | None = None
    layout = "cells" if neat else rng.choices(list(LAYOUTS), list(LAYOUTS.values()))[0]
    for place in draw_places(rng, size, num_things, layout) if num_things else ():
        touching = {thing.color for thing in things if _covered(_place(thing), place) > 0}
        color, rgb = draw_color(rng, background, [c for c in colors if c not in touching] or list(COLORS))
        if color in touching:
            continue
        shape = rng.choice(shapes)
        if neat:
            look = Look(smooth=rng.random() < 0.5, form=rng.random() * 0.7)
        elif look is None or not alike or "ring" in (shape, things[-1].shape):
            look = draw_look(rng, shape, rgb, background)
        if look.outline is not None and not look.filled:
            look = draw_look(rng, shape, rgb, background)
        things.append(make_thing(size, color, shape, rgb, place if neat else _shaped(rng, shape, place), look))
    return Scene(size, background, tuple(sorted(things, key=_reading_order)))


def draw_thing(rng: Random, size: Size, background: Background, place: Place, names: set[str] | None = None) -> Thing:
    """A thing at `place`; `names` are taken already."""
    while True:
        color, rgb = draw_color(rng, background)
        shape = rng.choice(SHAPES)
        if names is None or f"{color} {shape}" not in names:
            return make_thing(size, color, shape, rgb, place, draw_look(rng, shape, rgb, background))


def _place(thing: Thing) -> Place:
    return thing.left, thing.top, thing.width, thing.height


def _shaped(rng: Random, shape: str, place: Place) -> Place:
    """The place, made slimmer or flatter where the shape allows it."""
    left, top, width, height = place
    if rng.random() < 0.5:
        return place
    low = 0.9 if shape in ("circle", "square", "ring") else 0.72
    slim = rng.uniform(low, 1.0)
    return (left, top, width * slim, height) if rng.random() < 0.5 else (left, top, width, height * slim)


def _reading_order(thing: Thing) -> tuple[int, float]:
    return thing.cell, thing.left + thing.width / 2
