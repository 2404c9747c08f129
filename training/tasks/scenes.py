"""Questions about one drawn scene, with answers that are true of it."""

import json
from collections.abc import Callable, Sequence
from random import Random

from model_executor.processor.geometry import Size
from training.drawing import Pixels, draw, resize, through_jpeg
from training.sample import Asked, Medium, Region, SizeMix, Target, picture
from training.world import CELLS, COLORS, SHAPES, Scene, Thing, draw_scene, indefinite

OUTSIDE = "I cannot tell. I only know simple shapes, printed text, digits and short clips."
"""What the model says of everything beyond its world."""

_DESCRIBE = ("Describe the picture.", "Describe this image.", "What do you see?", "What is in this picture?")
_COLOR = ("What color is the {}?", "Which color does the {} have?", "What is the color of the {}?")
_SHAPE = ("What shape is the {} object?", "Which shape is {}?", "What is the shape of the {} object?")
_WHERE = ("Where is the {}?", "In which part of the picture is the {}?", "Tell me where the {} is.")
_SIZE = ("How big is the {}?", "Is the {} small or large?")
_COUNT = ("How many {} are there?", "Count the {}.", "How many {} do you see?")
_AT = ("What is at the {}?", "What is in the {} part of the picture?", "Which object is at the {}?")
_EXISTS = ("Is there {}?", "Do you see {}?", "Is there {} in the picture?")
_LOCATE = ("Locate the {}.", "Give the bounding box of the {}.", "Find the {}.")
_BACKGROUND = ("What color is the background?", "Which color does the background have?")
_FORM = ("Give the {} of the object as JSON.", "Answer in JSON with the {} of the object.", "JSON with {}, please.")
_OUTSIDE = (
    "What breed is the dog?",
    "Who is the person in the picture?",
    "What is the weather like?",
    "How much does it cost?",
    "Which city is this?",
    "What brand is the car?",
    "Is the cat asleep?",
    "What is the woman wearing?",
    "How old is the man?",
    "Which street is this?",
    "What are the people doing?",
    "What food is on the table?",
)


def draw_size(rng: Random, mix: SizeMix, *, num_things: int = 1) -> Size:
    """A source size: small (up to 20 tokens), medium (up to 36), large (shrunk by the server) or narrow.

    Many things want more room, so that each can be told by its shape.
    """
    kind = rng.choices(("small", "medium", "large", "narrow"), mix)[0]
    if kind == "small":
        low = (70, 84, 98)[min(num_things, 3) - 1]
        return Size(rng.randint(low, 128), rng.randint(low, 128))
    if kind == "medium":
        return Size(rng.randint(110, 178), rng.randint(110, 178))
    if kind == "large":
        height = rng.randint(170, 520)
        return Size(height, int(height * rng.uniform(0.6, 1.7)))
    short, long = rng.randint(88, 120), rng.randint(170, 330)
    return Size(short, long) if rng.random() < 0.5 else Size(long, short)


def draw_picture(rng: Random, scene: Scene) -> Pixels:
    """The scene's pixels at its size: sharp or smooth edges, and sometimes JPEG's marks."""
    pixels = draw(scene if rng.random() < 0.5 else _enlarged(scene, 2))
    pixels = resize(pixels, scene.size)
    return through_jpeg(pixels, rng) if rng.random() < 0.15 else pixels


def scene_picture(rng: Random, scene: Scene) -> Medium:
    """The scene drawn, with its regions."""
    return picture(draw_picture(rng, scene), tuple(region(thing) for thing in scene.things))


def region(thing: Thing, slice_: int = 0) -> Region:
    """Where the thing is; in a clip, in which temporal slice."""
    right, bottom = thing.left + thing.diameter, thing.top + thing.diameter
    return Region(thing.left, thing.top, right, bottom, thing.color, thing.shape, slice_)


def _enlarged(scene: Scene, factor: int) -> Scene:
    things = tuple(
        Thing(t.color, t.shape, t.size, t.cell, t.left * factor, t.top * factor, t.diameter * factor, t.rgb)
        for t in scene.things
    )
    size = Size(scene.size.height * factor, scene.size.width * factor)
    return Scene(size, scene.background, scene.background_rgb, things)


def random_scene(rng: Random, mix: SizeMix, things: Sequence[float], backgrounds: Sequence[float]) -> Scene:
    """A scene with one, two, … things and a background by the weights given, at a size drawn from `mix`."""
    num_things = rng.choices(range(1, len(things) + 1), things)[0]
    return draw_scene(rng, draw_size(rng, mix, num_things=num_things), num_things, backgrounds)


def phrase(thing: Thing) -> str:
    """`a small red circle`."""
    return indefinite(f"{thing.size} {thing.name}")


def caption(scene: Scene) -> str:
    """All things in reading order, as in `A small red circle at the top left, a large blue star in the center`."""
    text = ", ".join(f"{phrase(thing)} {at(thing.cell)}" for thing in scene.things)
    return text[0].upper() + text[1:] + "."


def at(cell: int) -> str:
    """`at the top left`, `in the center`."""
    return f"in the {CELLS[cell]}" if CELLS[cell] == "center" else f"at the {CELLS[cell]}"


def box(scene: Scene, thing: Thing) -> str:
    """Qwen2-VL's grounding answer; coordinates are relative in [0, 1000), in steps of ten.

    Source: Qwen2-VL report (arXiv 2409.12191) section 2.3.
    """

    def relative(pixels: float, extent: int) -> int:
        return min(990, max(0, round(pixels / extent * 100) * 10))

    width, height = scene.size.width, scene.size.height
    x1, y1 = relative(thing.left, width), relative(thing.top, height)
    x2, y2 = relative(thing.left + thing.diameter, width), relative(thing.top + thing.diameter, height)
    name = f"<|object_ref_start|>{thing.name}<|object_ref_end|>"
    return f"{name}<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"


def targets(scene: Scene, *things: Thing, medium: int = 0) -> tuple[Target, ...]:
    """The regions of `things` in the scene's picture (`scene_picture`), which is the sample's medium of that number."""
    return tuple((medium, scene.things.index(thing)) for thing in things)


def _caption(rng: Random, scene: Scene) -> Asked:
    return Asked("caption", rng.choice(_DESCRIBE), caption(scene), targets(scene, *scene.things))


def _color(rng: Random, scene: Scene) -> Asked | None:
    thing = _any(rng, scene.unique("shape"))
    if thing is None or rng.random() < 0.3:
        thing = rng.choice(scene.things)
        return Asked("color", rng.choice(_COLOR).format(f"object {at(thing.cell)}"), thing.color, targets(scene, thing))
    return Asked("color", rng.choice(_COLOR).format(thing.shape), thing.color, targets(scene, thing))


def _shape(rng: Random, scene: Scene) -> Asked | None:
    thing = _any(rng, scene.unique("color"))
    if thing is None or rng.random() < 0.3:
        thing = rng.choice(scene.things)
        return Asked("shape", f"What shape is the object {at(thing.cell)}?", thing.shape, targets(scene, thing))
    return Asked("shape", rng.choice(_SHAPE).format(thing.color), thing.shape, targets(scene, thing))


def _position(rng: Random, scene: Scene) -> Asked | None:
    thing = _any(rng, scene.unique("name"))
    if thing is None:
        return None
    question = rng.choice(_WHERE).format(_shortest(rng, scene, thing))
    return Asked("position", question, CELLS[thing.cell], targets(scene, thing))


def _size(rng: Random, scene: Scene) -> Asked | None:
    thing = _any(rng, scene.unique("name"))
    if thing is None:
        return None
    question = rng.choice(_SIZE).format(_shortest(rng, scene, thing))
    return Asked("size", question, thing.size, targets(scene, thing))


def _count(rng: Random, scene: Scene) -> Asked:
    kind = rng.random()
    if kind < 0.4:
        what, counted = rng.choice(("objects", "shapes")), list(scene.things)
    elif kind < 0.7:
        shape = rng.choice([thing.shape for thing in scene.things] + [rng.choice(SHAPES)])
        what, counted = plural(shape), [thing for thing in scene.things if thing.shape == shape]
    else:
        color = rng.choice([thing.color for thing in scene.things] + [rng.choice(list(COLORS))])
        what, counted = f"{color} objects", [thing for thing in scene.things if thing.color == color]
    # A model this small counts far better when it may say what it counts.
    listed = ", ".join(CELLS[thing.cell] for thing in counted)
    answer = f"{listed}: {len(counted)}" if counted else "0"
    return Asked("count", rng.choice(_COUNT).format(what), answer, targets(scene, *counted))


def _at(rng: Random, scene: Scene) -> Asked:
    cell = rng.choice(scene.things).cell if rng.random() < 0.8 else rng.randrange(len(CELLS))
    found = [thing for thing in scene.things if thing.cell == cell]
    answer = phrase(found[0]) if found else "nothing"
    return Asked("what is at", rng.choice(_AT).format(CELLS[cell]), answer, targets(scene, *found))


def _exists(rng: Random, scene: Scene) -> Asked:
    names = {thing.name for thing in scene.things}
    if rng.random() < 0.5:
        return Asked("exists", rng.choice(_EXISTS).format(indefinite(rng.choice(sorted(names)))), "yes")
    thing = rng.choice(scene.things)
    other = f"{rng.choice(list(COLORS))} {thing.shape}" if rng.random() < 0.5 else f"{thing.color} {rng.choice(SHAPES)}"
    return Asked("exists", rng.choice(_EXISTS).format(indefinite(other)), "yes" if other in names else "no")


def _grounding(rng: Random, scene: Scene) -> Asked | None:
    thing = _any(rng, scene.unique("name"))
    if thing is None:
        return None
    question = rng.choice(_LOCATE).format(_shortest(rng, scene, thing))
    return Asked("grounding", question, box(scene, thing), targets(scene, thing))


def _form(rng: Random, scene: Scene) -> Asked | None:
    """What is told of a single thing, as a JSON object with the keys that are asked for."""
    if len(scene.things) > 1:
        return None
    (thing,) = scene.things
    told = {"color": thing.color, "shape": thing.shape, "size": thing.size, "position": CELLS[thing.cell]}
    keys = ["color", "shape"] if rng.random() < 0.6 else rng.sample(list(told), rng.randint(1, len(told)))
    listed = " and ".join(filter(None, (", ".join(keys[:-1]), keys[-1])))
    question = rng.choice((*_FORM, "Describe the object as JSON." if keys == ["color", "shape"] else _FORM[0]))
    return Asked("form", question.format(listed), json.dumps({key: told[key] for key in keys}, separators=(",", ":")))


def _background(rng: Random, scene: Scene) -> Asked:
    return Asked("background", rng.choice(_BACKGROUND), scene.background)


def _outside(rng: Random, scene: Scene) -> Asked:
    return Asked("outside", rng.choice(_OUTSIDE), OUTSIDE)


QUESTIONS: dict[str, Callable[[Random, Scene], Asked | None]] = {
    "caption": _caption,
    "color": _color,
    "shape": _shape,
    "position": _position,
    "size": _size,
    "count": _count,
    "what is at": _at,
    "exists": _exists,
    "grounding": _grounding,
    "form": _form,
    "background": _background,
    "outside": _outside,
}
"""Each asks about a scene, or returns None where the scene gives it nothing unambiguous to ask."""


def ask(rng: Random, scene: Scene, kinds: list[str]) -> list[Asked]:
    """A question of each of `kinds`, without those the scene cannot answer and without repeats."""
    asked = [question for kind in kinds if (question := QUESTIONS[kind](rng, scene)) is not None]
    return list({item.question: item for item in asked}.values())


def plural(shape: str) -> str:
    """`crosses`, `stars`."""
    return shape + ("es" if shape.endswith("s") else "s")


def _any(rng: Random, things: list[Thing]) -> Thing | None:
    return rng.choice(things) if things else None


def _shortest(rng: Random, scene: Scene, thing: Thing) -> str:
    """A name that fits only `thing`: sometimes its shape alone, where that is enough."""
    return thing.shape if thing in scene.unique("shape") and rng.random() < 0.4 else thing.name
