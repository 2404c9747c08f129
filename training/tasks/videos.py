"""Short videos: things that move, appear, change their color or blink, and scenes that follow one another.

Frames are half a second apart, so two frames make one temporal slice and one second. Lengths are in frames, even.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np
from PIL import Image

from model_executor.processor.geometry import TEMPORAL_PATCH_FRAMES, Size
from training.backgrounds import draw_background as background_pixels
from training.drawing import Pixels, paste, sprites, through_artifacts
from training.sample import Asked, Media, Target
from training.tasks.scenes import region
from training.world import (
    COLORS,
    Background,
    Scene,
    Thing,
    can_be_seen,
    draw_background,
    draw_place,
    draw_thing,
    indefinite,
    place_in_cell,
    shade_of,
)

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
FRAMES_PER_SECOND = 2
MAX_BLINKS = 4
_UNCHANGED = (Size(112, 112), Size(112, 140), Size(140, 112), Size(84, 168), Size(168, 84))
"""Sizes that the model's limits leave as they are."""
_LATE = 0.25
"""Share of things that appear half a second later: not all that happens does so on the stroke of a second."""

_DESCRIBE = (
    "What happens in the video?",
    "Describe the video.",
    "What happens?",
    "What does the video show?",
    "Tell me what happens.",
)
_DIRECTION = ("Which way does the {} move?", "In which direction does the {} move?", "Where does the {} go?")
_ORDER = ("In which order do the objects appear?", "List the objects in the order they appear.", "What appears when?")
_SECOND = ("At which second does the {} appear?", "When does the {} appear?", "At what second does the {} appear?")
_CHANGE_SECOND = ("At which second does the color change?", "When does the color change?")
_BLINKS = ("How many times does the {} blink?", "How often does the {} blink?", "Count the blinks of the {}.")
_SCENES = ("How many scenes are there?", "How many different scenes does the video have?")


def draw_frames(rng: Random, low: int, high: int) -> int:
    """An even number of frames between the even `low` and `high`, short ones more often."""
    return 2 * round(low / 2 * float((high / low) ** rng.random()))


def _draw_size(rng: Random) -> Size:
    if rng.random() < 0.45:
        return rng.choice(_UNCHANGED)
    if rng.random() < 0.25:
        short, slim = rng.randint(90, 240), rng.uniform(1.0, 1.8)
        return Size(short, int(short * slim)) if rng.random() < 0.7 else Size(int(short * slim), short)
    return Size(rng.randint(76, 140), rng.randint(76, 140))


def _film(rng: Random, scenes: Sequence[Scene]) -> Media:
    """The video of `scenes`: backgrounds and things are drawn once. Each slice tells what its first frame shows."""
    backgrounds: dict[Background, Image.Image] = {}
    frames: dict[Scene, Pixels] = {}
    shapes: dict[Thing, list] = {}  # type: ignore[type-arg]
    coarse = rng.random() < 0.2
    for scene in scenes:
        if scene in frames:
            continue
        if scene.background not in backgrounds:
            backgrounds[scene.background] = background_pixels(scene.background, scene.size)
        canvas = backgrounds[scene.background].copy()
        for thing in scene.things:
            still = replace(thing, left=0.0, top=0.0, cells=(), sizes=())
            if still not in shapes:
                shapes[still] = sprites(still)
            paste(canvas, thing, shapes[still])
        pixels = np.asarray(canvas)
        frames[scene] = through_artifacts(pixels, rng, 1.0) if coarse and len(frames) < 3 else pixels
    regions = tuple(region(thing, slice_) for slice_, thing in _shown(scenes))
    return Media("video", tuple(frames[scene] for scene in scenes), regions)


def _shown(scenes: Sequence[Scene]) -> list[tuple[int, Thing]]:
    """Slice and thing of each region of the video of `scenes`, in order."""
    return [(index, thing) for index, scene in enumerate(scenes[::TEMPORAL_PATCH_FRAMES]) for thing in scene.things]


def _target(scenes: Sequence[Scene], thing: Thing, second: int) -> Target:
    """The region of `thing`, as it is at `second`, in the video of `scenes`."""
    return 0, _shown(scenes).index((second, thing))


def _path(rng: Random, legs: Sequence[str], num_frames: int) -> list[tuple[float, float]]:
    """Places (shares of the room there is) of a thing that goes the ways of `legs` one after another."""
    steps = num_frames // len(legs)
    points = [(rng.random(), rng.random())]
    for leg in legs:
        dx, dy = DIRECTIONS.get(leg, (0, 0))
        x, y = points[-1]
        room = (1 - x if dx > 0 else x) if dx else (1 - y if dy > 0 else y) if dy else 0.0
        if dx or dy:
            if room < 0.45:  # begin further back, with all that was before
                back = rng.uniform(0.45, 1.0) - room
                points = [(px - dx * back, py - dy * back) for px, py in points]
                x, y, room = x - dx * back, y - dy * back, room + back
            way = min(room, rng.uniform(0.45, 1.0))
            points.append((x + dx * way, y + dy * way))
        else:
            points.append((x, y))
    path: list[tuple[float, float]] = []
    for (x, y), (u, v) in itertools.pairwise(points):
        count = steps if len(path) + 2 * steps <= num_frames else num_frames - len(path)
        shares = np.linspace(0, 1, count + bool(path))[bool(path) :]
        path += [(x + (u - x) * share, y + (v - y) * share) for share in shares.tolist()]
    return path


def motion(rng: Random, num_frames: int) -> tuple[Media, list[Asked]]:
    """One thing moves in one direction, or in two one after the other, or stays."""
    size, background = _draw_size(rng), draw_background(rng)
    side = min(size.height, size.width) * rng.uniform(0.18, 0.42)
    thing = draw_thing(rng, size, background, (0, 0, side, side))
    legs = [rng.choice([*DIRECTIONS, *DIRECTIONS, "nowhere"])]
    if legs[0] != "nowhere" and num_frames >= 8 and rng.random() < 0.35:
        across = [name for name, way in DIRECTIONS.items() if abs(way[0]) != abs(DIRECTIONS[legs[0]][0])]
        legs.append(rng.choice(across))
    scenes = []
    for x, y in _path(rng, legs, num_frames):
        x, y = min(1.0, max(0.0, x)), min(1.0, max(0.0, y))
        moved = replace(thing, left=float(int(x * (size.width - side))), top=float(int(y * (size.height - side))))
        scenes.append(Scene(size, background, (moved,)))
    said = {"left": "to the left", "right": "to the right"}
    verb = " and then ".join(said.get(leg, leg) for leg in legs)
    verb = "stays where it is" if legs == ["nowhere"] else f"moves {verb}"
    subject = rng.choice((thing.shape, thing.name, "object"))
    asked = [
        Asked("video caption", rng.choice(_DESCRIBE), _sentence(f"{indefinite(thing.name)} {verb}")),
        Asked(
            "motion" if len(legs) == 1 else "two motions", rng.choice(_DIRECTION).format(subject), ", then ".join(legs)
        ),
        Asked("video color", f"What color is the {thing.shape}?", thing.color),
    ]
    return _film(rng, scenes), asked


def appearance(rng: Random, num_frames: int) -> tuple[Media, list[Asked]]:
    """Two to four different things appear one after another and stay; the first frame may already show one."""
    size, background = _draw_size(rng), draw_background(rng)
    num_things = min(rng.choice((2, 2, 3, 3, 4)), num_frames // 2)
    things: list[Thing] = []
    for cell in rng.sample(range(9), num_things):
        place = place_in_cell(rng, size, cell)
        thing = draw_thing(rng, size, background, place)
        while any(thing.color == other.color or thing.shape == other.shape for other in things):
            thing = draw_thing(rng, size, background, place)
        things.append(thing)
    seconds = sorted(rng.sample(range(num_frames // FRAMES_PER_SECOND), num_things))
    last = num_frames // FRAMES_PER_SECOND - 1
    frames = [FRAMES_PER_SECOND * s + (0 < s < last and rng.random() < _LATE) for s in seconds]

    def at_frame(frame: int) -> Scene:
        there = tuple(t for t, first in zip(things, frames, strict=True) if first <= frame)
        return Scene(size, background, there)

    scenes = [at_frame(frame) for frame in range(num_frames)]
    first = tuple(_first_target(scenes, thing, second) for thing, second in zip(things, seconds, strict=True))
    order, which = ", ".join(thing.name for thing in things), rng.randrange(num_things)
    told = ", ".join(f"{indefinite(t.name)} appears at second {s}" for t, s in zip(things, seconds, strict=True))
    question = rng.choice(_SECOND).format(rng.choice((things[which].shape, things[which].name)))
    asked = [
        Asked("video caption", rng.choice(_DESCRIBE), _sentence(told), first),
        Asked("order", rng.choice(_ORDER), order, first),
        Asked("second", question, str(seconds[which]), first[which : which + 1]),
        Asked("order", "Which object appears first?", things[0].name, first[:1]),
        Asked("order", "Which object appears last?", things[-1].name, first[-1:]),
        Asked("video count", "How many objects are there at the end?", str(num_things)),
    ]
    return _film(rng, scenes), asked


def _first_target(scenes: Sequence[Scene], thing: Thing, second: int) -> Target:
    """Where the thing is seen first: at `second`, or in the slice after it where it comes late."""
    late = (second, thing) not in _shown(scenes)
    return _target(scenes, thing, second + late)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def change(rng: Random, num_frames: int) -> tuple[Media, list[Asked]]:
    """One thing changes its color, once or twice."""
    size, background = _draw_size(rng), draw_background(rng)
    thing = draw_thing(rng, size, background, draw_place(rng, size, 0.7))
    duration = num_frames // FRAMES_PER_SECOND
    number = 2 if duration >= 5 and rng.random() < 0.35 else 1
    seconds = sorted(rng.sample(range(1, duration), number))
    states = [thing]
    while len(states) <= number:
        color = rng.choice(list(COLORS))
        rgb = shade_of(color, rng)
        if color not in {state.color for state in states} and can_be_seen(rgb, color, background):
            look = thing.look if thing.look.filled else replace(thing.look, outline=rgb)
            states.append(replace(thing, color=color, rgb=rgb, look=look))

    def state(second: int) -> Thing:
        return states[sum(begun <= second for begun in seconds)]

    scenes = [Scene(size, background, (state(frame // FRAMES_PER_SECOND),)) for frame in range(num_frames)]
    turned = tuple(_target(scenes, s, second) for s, second in zip(states[1:], seconds, strict=True))
    when = rng.randrange(duration)
    turns = ", then ".join(s.color for s in states[1:])
    told = f"The {thing.name} turns " + ", then ".join(
        f"{s.color} at second {second}" for s, second in zip(states[1:], seconds, strict=True)
    )
    asked = [
        Asked("video caption", rng.choice(_DESCRIBE), f"{told}.", turned),
        Asked("change", "What changes in the video?", f"the {thing.shape} turns {turns}", turned),
        Asked(
            "video color",
            f"What color is the {thing.shape} at second {when}?",
            state(when).color,
            (_target(scenes, state(when), when),),
        ),
    ]
    if number == 1:
        asked.append(Asked("second", rng.choice(_CHANGE_SECOND), str(seconds[0]), turned))
    return _film(rng, scenes), asked


def blinking(rng: Random) -> tuple[Media, list[Asked]]:
    """One thing shows one to four times with gaps between; each showing and each gap lasts a second."""
    size, background = _draw_size(rng), draw_background(rng)
    thing = draw_thing(rng, size, background, draw_place(rng, size, 0.6))
    times = rng.randint(1, MAX_BLINKS)
    empty, shown = Scene(size, background, ()), Scene(size, background, (thing,))
    scenes = [empty] * FRAMES_PER_SECOND
    for _ in range(times):
        scenes += [shown] * FRAMES_PER_SECOND + [empty] * FRAMES_PER_SECOND * rng.choice((1, 1, 2))
    word = {1: "once", 2: "twice", 3: "three times", 4: "four times"}[times]
    asked = [
        Asked("blinking", rng.choice(_BLINKS).format(rng.choice((thing.shape, thing.name))), str(times)),
        Asked("video caption", rng.choice(_DESCRIBE), _sentence(f"{indefinite(thing.name)} blinks {word}")),
    ]
    return _film(rng, scenes), asked


def cuts(rng: Random, num_frames: int) -> tuple[Media, list[Asked]]:
    """Two or three scenes of one thing each, one after another."""
    size, duration = _draw_size(rng), num_frames // FRAMES_PER_SECOND
    number = min(rng.choice((2, 2, 3)), duration)
    seconds = [0, *sorted(rng.sample(range(1, duration), number - 1))]
    parts: list[Scene] = []
    while len(parts) < number:
        background = draw_background(rng)
        thing = draw_thing(rng, size, background, draw_place(rng, size, 0.8))
        if all(thing.name != part.things[0].name for part in parts):
            parts.append(Scene(size, background, (thing,)))
    scenes = [parts[sum(begun <= frame // FRAMES_PER_SECOND for begun in seconds) - 1] for frame in range(num_frames)]
    names = [part.things[0].name for part in parts]
    seen = tuple(_target(scenes, part.things[0], second) for part, second in zip(parts, seconds, strict=True))
    told = ", then ".join(indefinite(name) for name in names)
    which = rng.randrange(1, number)
    asked = [
        Asked("video caption", rng.choice(_DESCRIBE), _sentence(f"first {told}"), seen),
        Asked("cuts", rng.choice(_SCENES), str(number)),
        Asked("order", rng.choice(_ORDER), ", ".join(names), seen),
        Asked("second", rng.choice(_SECOND).format(names[which]), str(seconds[which]), seen[which : which + 1]),
    ]
    return _film(rng, scenes), asked


def video_sample(rng: Random, low: int, high: int, kinds: Mapping[str, float]) -> tuple[Media, list[Asked]]:
    """A video of one of the kinds, `low` to `high` frames long (blinking: as long as it takes).

    Args:
        rng: where chance comes from.
        low: fewest frames, even.
        high: most frames, even.
        kinds: shares of `motion`, `appearance`, `change`, `blinking` and `cuts`.
    """
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    if kind == "blinking":
        return blinking(rng)
    make = {"motion": motion, "appearance": appearance, "change": change, "cuts": cuts}[kind]
    return make(rng, draw_frames(rng, low, high))
