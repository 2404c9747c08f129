"""Short clips: a thing that moves, things that appear in turn, a colour that changes, a thing that blinks.

Frames are half a second apart, so two frames make one temporal slice and one second. Lengths are in frames, even.
"""

from collections.abc import Mapping
from dataclasses import replace
from random import Random

from model_executor.processor.geometry import TEMPORAL_PATCH_FRAMES, Size
from training.drawing import Pixels
from training.sample import Asked, Medium, Target
from training.tasks.scenes import draw_picture, region
from training.world import COLORS, SHAPES, Scene, Thing, draw_background, draw_thing, indefinite, jitter

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
FRAMES_PER_SECOND = 2
MAX_BLINKS = 4

_DESCRIBE = ("What happens in the video?", "Describe the video.", "What happens?")
_DIRECTION = ("Which way does the {} move?", "In which direction does the {} move?", "Where does the {} go?")
_ORDER = ("In which order do the objects appear?", "List the objects in the order they appear.")
_SECOND = ("At which second does the {} appear?", "When does the {} appear?", "At what second does the {} appear?")
_CHANGE_SECOND = ("At which second does the color change?", "When does the color change?")
_BLINKS = ("How many times does the {} blink?", "How often does the {} blink?", "Count the blinks of the {}.")


def draw_frames(rng: Random, low: int, high: int) -> int:
    """An even number of frames between the even `low` and `high`."""
    return 2 * rng.randint(low // 2, high // 2)


def _draw_size(rng: Random) -> Size:
    return Size(rng.randint(76, 124), rng.randint(76, 124))


def _film(rng: Random, scenes: list[Scene]) -> Medium:
    """The clip of `scenes`; equal scenes in a row are drawn once. Each slice tells what its first frame shows."""
    drawn: dict[Scene, Pixels] = {}
    for scene in scenes:
        if scene not in drawn:
            drawn[scene] = draw_picture(rng, scene)
    regions = tuple(region(thing, slice_) for slice_, thing in _shown(scenes))
    return Medium("video", tuple(drawn[scene] for scene in scenes), regions)


def _shown(scenes: list[Scene]) -> list[tuple[int, Thing]]:
    """Slice and thing of each region of the clip of `scenes`, in order."""
    return [(index, thing) for index, scene in enumerate(scenes[::TEMPORAL_PATCH_FRAMES]) for thing in scene.things]


def _target(scenes: list[Scene], thing: Thing, second: int) -> Target:
    """The region of `thing`, as it is at `second`, in the clip of `scenes`."""
    return 0, _shown(scenes).index((second, thing))


def motion(rng: Random, num_frames: int) -> tuple[Medium, list[Asked]]:
    """One thing crosses the picture in one of four directions, or stays."""
    size = _draw_size(rng)
    thing = draw_thing(rng, size, 0, rng.choice(list(COLORS)), rng.choice(SHAPES))
    name, rgb = draw_background(rng, (thing.color,))
    diameter = min(size.height, size.width) * rng.uniform(0.22, 0.4)
    room_x, room_y = size.width - diameter, size.height - diameter
    direction = rng.choice([*DIRECTIONS, *DIRECTIONS, "nowhere"])
    dx, dy = DIRECTIONS.get(direction, (0, 0))
    travel = rng.uniform(0.45, 1.0)
    start = rng.uniform(0, 1 - travel)
    across = rng.random()
    scenes = []
    for frame in range(num_frames):
        along = start + travel * frame / (num_frames - 1)
        x = along if dx > 0 else 1 - along if dx < 0 else across
        y = along if dy > 0 else 1 - along if dy < 0 else across
        if (dx, dy) == (0, 0):
            x = start
        moved = replace(thing, left=x * room_x, top=y * room_y, diameter=diameter)
        scenes.append(Scene(size, name, rgb, (moved,)))
    towards = {"left": "to the left", "right": "to the right", "nowhere": "nowhere"}.get(direction, direction)
    verb = "stays where it is" if direction == "nowhere" else f"moves {towards}"
    asked = [
        Asked("clip caption", rng.choice(_DESCRIBE), _sentence(f"{indefinite(thing.name)} {verb}")),
        Asked("motion", rng.choice(_DIRECTION).format(rng.choice((thing.shape, thing.name, "object"))), direction),
        Asked("clip color", f"What color is the {thing.shape}?", thing.color),
    ]
    return _film(rng, scenes), asked


def appearance(rng: Random, num_frames: int) -> tuple[Medium, list[Asked]]:
    """Two or three different things appear one after another and stay; the first frame may already show one."""
    size = _draw_size(rng)
    num_things = min(rng.choice((2, 2, 3)), num_frames // 2)
    cells = rng.sample(range(9), num_things)
    colors, shapes = rng.sample(list(COLORS), num_things), rng.sample(SHAPES, num_things)
    things = [
        draw_thing(rng, size, cell, color, shape) for cell, color, shape in zip(cells, colors, shapes, strict=True)
    ]
    seconds = sorted(rng.sample(range(num_frames // FRAMES_PER_SECOND), num_things))
    frames = [FRAMES_PER_SECOND * second for second in seconds]
    name, rgb = draw_background(rng, tuple(colors))

    def at_frame(frame: int) -> Scene:
        return Scene(size, name, rgb, tuple(t for t, first in zip(things, frames, strict=True) if first <= frame))

    order = ", ".join(thing.name for thing in things)
    which = rng.randrange(num_things)
    scenes = [at_frame(frame) for frame in range(num_frames)]
    first = tuple(_target(scenes, thing, second) for thing, second in zip(things, seconds, strict=True))
    asked = [
        Asked("clip caption", rng.choice(_DESCRIBE), _told(things, seconds), first),
        Asked("order", rng.choice(_ORDER), order, first),
        Asked(
            "second",
            rng.choice(_SECOND).format(rng.choice((things[which].shape, things[which].name))),
            str(seconds[which]),
            first[which : which + 1],
        ),
        Asked("order", "Which object appears first?", things[0].name, first[:1]),
        Asked("order", "Which object appears last?", things[-1].name, first[-1:]),
        Asked("clip count", "How many objects are there at the end?", str(num_things)),
    ]
    return _film(rng, scenes), asked


def _told(things: list[Thing], seconds: list[int]) -> str:
    return _sentence(
        ", ".join(f"{indefinite(t.name)} appears at second {s}" for t, s in zip(things, seconds, strict=True))
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def change(rng: Random, num_frames: int) -> tuple[Medium, list[Asked]]:
    """One thing changes its colour once, at a whole second."""
    size = _draw_size(rng)
    before, after = rng.sample(list(COLORS), 2)
    thing = draw_thing(rng, size, rng.randrange(9), before, rng.choice(SHAPES))
    changed = replace(thing, color=after, rgb=jitter(COLORS[after], rng))
    name, rgb = draw_background(rng, (before, after))
    second = rng.randint(1, num_frames // FRAMES_PER_SECOND - 1)
    scenes = [
        Scene(size, name, rgb, (thing if frame < second * FRAMES_PER_SECOND else changed,))
        for frame in range(num_frames)
    ]
    turned = (_target(scenes, changed, second),)
    when = rng.randrange(num_frames // FRAMES_PER_SECOND)
    now = thing if when < second else changed
    asked = [
        Asked("clip caption", rng.choice(_DESCRIBE), f"The {thing.name} turns {after} at second {second}.", turned),
        Asked("change", "What changes in the video?", f"the {thing.shape} turns {after}", turned),
        Asked("second", rng.choice(_CHANGE_SECOND), str(second), turned),
        Asked(
            "clip color",
            f"What color is the {thing.shape} at second {when}?",
            now.color,
            (_target(scenes, now, when),),
        ),
    ]
    return _film(rng, scenes), asked


def blinking(rng: Random) -> tuple[Medium, list[Asked]]:
    """One thing shows one to four times with gaps between; each showing and each gap lasts a second."""
    size = _draw_size(rng)
    thing = draw_thing(rng, size, rng.randrange(9), rng.choice(list(COLORS)), rng.choice(SHAPES))
    name, rgb = draw_background(rng, (thing.color,))
    times = rng.randint(1, MAX_BLINKS)
    empty, shown = Scene(size, name, rgb, ()), Scene(size, name, rgb, (thing,))
    scenes = [empty] * FRAMES_PER_SECOND
    for _ in range(times):
        scenes += [shown] * FRAMES_PER_SECOND + [empty] * FRAMES_PER_SECOND * rng.choice((1, 1, 2))
    word = {1: "once", 2: "twice", 3: "three times", 4: "four times"}[times]
    asked = [
        Asked("blinking", rng.choice(_BLINKS).format(rng.choice((thing.shape, thing.name))), str(times)),
        Asked("clip caption", rng.choice(_DESCRIBE), _sentence(f"{indefinite(thing.name)} blinks {word}")),
    ]
    return _film(rng, scenes), asked


def clip_sample(rng: Random, low: int, high: int, kinds: Mapping[str, float]) -> tuple[Medium, list[Asked]]:
    """A clip of one of the four kinds, `low` to `high` frames long (blinking: as long as it takes).

    Args:
        rng: where chance comes from.
        low: fewest frames, even.
        high: most frames, even.
        kinds: shares of `motion`, `appearance`, `change` and `blinking`.
    """
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    if kind == "blinking":
        return blinking(rng)
    make = {"motion": motion, "appearance": appearance, "change": change}[kind]
    return make(rng, draw_frames(rng, low, high))
