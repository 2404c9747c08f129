"""Questions about one drawn scene, with answers that are true of it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from model_executor.processor.geometry import FACTOR_PX, Size
from training.drawing import draw, through_artifacts
from training.sample import Asked, Media, Phrases, Region, SizeMix, Target, image
from training.wording import vary
from training.world import CELLS, COLORS, SHAPES, Scene, Thing, draw_scene, indefinite

OUTSIDE = "I cannot tell. I only know simple shapes, printed text, digits and short videos."
"""What the model says of everything beyond its world."""

_DESCRIBE = (
    "Describe the image.",
    "Describe this image.",
    "Describe the picture.",
    "What do you see?",
    "What is in this picture?",
    "What is in this image?",
    "What's in the picture?",
    "What does the image show?",
    "Tell me what you see.",
    "What can you see here?",
    "Describe what you see.",
    "Which objects are in the picture?",
)
_COLOR = (
    "What color is the {}?",
    "Which color does the {} have?",
    "What is the color of the {}?",
    "What colour is the {}?",  # codespell:ignore colour
    "Tell me the color of the {}.",
    "The {}, what color is it?",
)
_SHAPE = (
    "What shape is the {} object?",
    "Which shape is {}?",
    "What is the shape of the {} object?",
    "What is the {} thing?",
    "The {} thing, what shape is it?",
    "Tell me the shape of the {} object.",
)
_WHERE = (
    "Where is the {}?",
    "In which part of the picture is the {}?",
    "Tell me where the {} is.",
    "Where do you see the {}?",
    "What is the position of the {}?",
    "Where in the image is the {}?",
)
_SIZE = ("How big is the {}?", "Is the {} small or large?", "Is the {} big or small?", "What size is the {}?")
_COUNT = (
    "How many {} are there?",
    "Count the {}.",
    "How many {} do you see?",
    "How many {} are in the picture?",
    "What is the number of {}?",
    "How many {}?",
)
_AT = (
    "What is at the {}?",
    "What is in the {} part of the picture?",
    "Which object is at the {}?",
    "What do you see at the {}?",
    "What's at the {}?",
)
_EXISTS = (
    "Is there {}?",
    "Do you see {}?",
    "Is there {} in the picture?",
    "Can you see {}?",
    "Does the image show {}?",
)
_LOCATE = (
    "Locate the {}.",
    "Give the bounding box of the {}.",
    "Find the {}.",
    "Draw a box around the {}.",
    "Where exactly is the {}? Give its box.",
    "Detect the {}.",
    "Show me the {} with a bounding box.",
)
_BACKGROUND = (
    "What color is the background?",
    "Which color does the background have?",
    "What is the background color?",
    "What colour is behind the objects?",  # codespell:ignore colour
)
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
    "What time of day is it?",
    "Which country is this?",
    "Is the man happy?",
    "How tall is the building?",
    "What kind of tree is that?",
    "Which animal is this?",
    "What is the girl holding?",
    "How fast is the train?",
    "Who painted this?",
    "Is the door open?",
    "What is written on the license plate?",
    "How heavy is the bag?",
)


_UNCHANGED = tuple(
    Size(height * FACTOR_PX, width * FACTOR_PX)
    for height in range(5, 12)
    for width in range(5, 12)
    if 49 <= height * width <= 64
)
"""Sizes that the model's limits leave as they are."""


def draw_size(rng: Random, mix: SizeMix) -> Size:
    """A source size in pixels: small, medium, large or narrow."""
    kind = rng.choices(("small", "medium", "large", "narrow"), mix)[0]
    if kind == "medium" and rng.random() < 0.6:
        return rng.choice(_UNCHANGED)
    if kind == "small":
        return Size(rng.randint(84, 144), rng.randint(84, 144))
    if kind == "medium":
        side, slim = rng.randint(140, 300), rng.choice((1.0, rng.uniform(0.6, 1.0)))
        return Size(side, int(side * slim)) if rng.random() < 0.5 else Size(int(side * slim), side)
    if kind == "large":
        side, slim = int(300 * 3 ** rng.random()), rng.uniform(0.6, 1.0)
        return Size(side, int(side * slim)) if rng.random() < 0.5 else Size(int(side * slim), side)
    short, slim = rng.randint(84, 160), rng.uniform(1.6, 3.0)
    return Size(short, int(short * slim)) if rng.random() < 0.5 else Size(int(short * slim), short)


def scene_image(rng: Random, scene: Scene) -> Media:
    """The scene drawn, sometimes with marks of its way here, and its regions."""
    return image(through_artifacts(draw(scene), rng), tuple(region(thing) for thing in scene.things))


def region(thing: Thing, slice_: int = 0) -> Region:
    """Where the thing is; in a video, in which temporal slice."""
    right, bottom = thing.left + thing.width, thing.top + thing.height
    return Region(thing.left, thing.top, right, bottom, thing.color, thing.shape, slice_)


def random_scene(rng: Random, mix: SizeMix, things: Sequence[float], neat: float) -> Scene:
    """A scene with no, one, two, … things by the weights given, at a size drawn from `mix`; `neat` by that chance."""
    return draw_scene(rng, draw_size(rng, mix), rng.choices(range(len(things)), things)[0], neat=rng.random() < neat)


def phrase(thing: Thing) -> str:
    """`a small red circle`."""
    return indefinite(f"{thing.size} {thing.name}")


def caption(scene: Scene) -> str:
    """All things in reading order, as in `A small red circle at the top left, a large blue star in the center`."""
    text = ", ".join(f"{phrase(thing)} {at(thing.cell)}" for thing in scene.things) or "nothing"
    return text[0].upper() + text[1:] + "."


def caption_phrases(scene: Scene) -> Phrases:
    """What each phrase of the caption may say."""
    return tuple(
        tuple(f"{indefinite(f'{size} {thing.name}')} {at(cell)}" for size in thing.sizes for cell in thing.cells)
        for thing in scene.things
    )


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
    x2, y2 = relative(thing.left + thing.width, width), relative(thing.top + thing.height, height)
    name = f"<|object_ref_start|>{thing.name}<|object_ref_end|>"
    return f"{name}<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"


def targets(scene: Scene, *things: Thing, item: int = 0) -> tuple[Target, ...]:
    """The regions of `things` in the scene's image (`scene_image`), which is the sample's media item of that number."""
    return tuple((item, scene.things.index(thing)) for thing in things)


def _caption(rng: Random, scene: Scene) -> Asked:
    question, told = rng.choice(_DESCRIBE), targets(scene, *scene.things)
    return Asked("caption", question, caption(scene), told, caption_phrases(scene))


def _alone(scene: Scene, *, sure: bool = False) -> list[Thing]:
    """The things with a cell of their own, also if one looks at its borders differently."""
    return [
        thing
        for thing in scene.things
        if not any(set(thing.cells) & set(other.cells) for other in scene.things if other is not thing)
        and (len(thing.cells) == 1 or not sure)
    ]


def _color(rng: Random, scene: Scene) -> Asked | None:
    thing, where = _any(rng, scene.unique("shape")), _any(rng, _alone(scene, sure=True))
    if where and (thing is None or rng.random() < 0.3):
        question = rng.choice(_COLOR).format(f"object {at(where.cell)}")
        return Asked("color", question, where.color, targets(scene, where))
    if thing is None:
        return None
    return Asked("color", rng.choice(_COLOR).format(thing.shape), thing.color, targets(scene, thing))


def _shape(rng: Random, scene: Scene) -> Asked | None:
    thing, where = _any(rng, scene.unique("color")), _any(rng, _alone(scene, sure=True))
    if where and (thing is None or rng.random() < 0.3):
        return Asked("shape", f"What shape is the object {at(where.cell)}?", where.shape, targets(scene, where))
    if thing is None:
        return None
    return Asked("shape", rng.choice(_SHAPE).format(thing.color), thing.shape, targets(scene, thing))


def _position(rng: Random, scene: Scene) -> Asked | None:
    thing = _any(rng, scene.unique("name"))
    if thing is None:
        return None
    question, right = rng.choice(_WHERE).format(_shortest(rng, scene, thing)), tuple(CELLS[c] for c in thing.cells)
    return Asked("position", question, right[0], targets(scene, thing), (right,))


def _size(rng: Random, scene: Scene) -> Asked | None:
    thing = _any(rng, scene.unique("name"))
    if thing is None:
        return None
    question = rng.choice(_SIZE).format(_shortest(rng, scene, thing))
    return Asked("size", question, thing.size, targets(scene, thing), (thing.sizes,))


def counted(rng: Random, scene: Scene) -> tuple[str | None, str | None, list[Thing]]:
    """What to count: a color, a shape, or (neither) everything; and the things that are it."""
    kind = rng.random()
    if kind < 0.4:
        return None, None, list(scene.things)
    if kind < 0.7:
        shape = rng.choice([thing.shape for thing in scene.things] + [rng.choice(SHAPES)])
        return None, shape, [thing for thing in scene.things if thing.shape == shape]
    color = rng.choice([thing.color for thing in scene.things] + [rng.choice(list(COLORS))])
    return color, None, [thing for thing in scene.things if thing.color == color]


def _count(rng: Random, scene: Scene) -> Asked:
    color, shape, found = counted(rng, scene)
    what = plural(shape) if shape else f"{color} objects" if color else rng.choice(("objects", "shapes", "things"))
    # A model this small counts far better when it may say what it counts.
    listed = ", ".join(CELLS[thing.cell] for thing in found)
    answer = f"{listed}: {len(found)}" if found else "0"
    return Asked("count", rng.choice(_COUNT).format(what), answer, targets(scene, *found))


def _at(rng: Random, scene: Scene) -> Asked | None:
    thing = _any(rng, _alone(scene))
    if thing is not None and rng.random() < 0.8:
        right = tuple(indefinite(f"{size} {thing.name}") for size in thing.sizes)
        question = rng.choice(_AT).format(CELLS[thing.cell])
        return Asked("what is at", question, right[0], targets(scene, thing), (right,))
    taken = {cell for thing in scene.things for cell in thing.cells}
    free = [cell for cell in range(len(CELLS)) if cell not in taken]
    return Asked("what is at", rng.choice(_AT).format(CELLS[rng.choice(free)]), "nothing") if free else None


def present(rng: Random, scene: Scene) -> tuple[str, str, bool]:
    """A color and a shape, and whether a thing of both is there."""
    names = {(thing.color, thing.shape) for thing in scene.things}
    if names and rng.random() < 0.5:
        return *rng.choice(sorted(names)), True
    color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
    if scene.things:
        thing = rng.choice(scene.things)
        color, shape = (color, thing.shape) if rng.random() < 0.5 else (thing.color, shape)
    return color, shape, (color, shape) in names


def _exists(rng: Random, scene: Scene) -> Asked:
    color, shape, there = present(rng, scene)
    return Asked("exists", rng.choice(_EXISTS).format(indefinite(f"{color} {shape}")), "yes" if there else "no")


def _grounding(rng: Random, scene: Scene) -> Asked | None:
    thing = _any(rng, scene.unique("name"))
    if thing is None:
        return None
    question = rng.choice(_LOCATE).format(_shortest(rng, scene, thing))
    return Asked("grounding", question, box(scene, thing), targets(scene, thing))


def _form(rng: Random, scene: Scene) -> Asked | None:
    """What is told of a single thing, as a JSON object with the keys that are asked for."""
    if len(scene.things) != 1:
        return None
    (thing,) = scene.things
    told = {"color": thing.color, "shape": thing.shape, "size": thing.size, "position": CELLS[thing.cell]}
    keys = ["color", "shape"] if rng.random() < 0.6 else rng.sample(list(told), rng.randint(1, len(told)))
    listed = " and ".join(filter(None, (", ".join(keys[:-1]), keys[-1])))
    question = rng.choice((*_FORM, "Describe the object as JSON." if keys == ["color", "shape"] else _FORM[0]))

    def answer(size: str, cell: int) -> str:
        values = {**told, "size": size, "position": CELLS[cell]}
        return json.dumps({key: values[key] for key in keys}, separators=(",", ":"))

    right = tuple(answer(size, cell) for size in thing.sizes for cell in thing.cells)
    return Asked("form", question.format(listed), right[0], (), (tuple(dict.fromkeys(right)),))


def _background(rng: Random, scene: Scene) -> Asked | None:
    if scene.background.name is None:
        return None
    return Asked("background", rng.choice(_BACKGROUND), scene.background.name)


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


def plural(shape: str) -> str:
    """`crosses`, `stars`."""
    return shape + ("es" if shape.endswith("s") else "s")


def _any(rng: Random, things: list[Thing]) -> Thing | None:
    return rng.choice(things) if things else None


def _shortest(rng: Random, scene: Scene, thing: Thing) -> str:
    """A name that fits only `thing`: sometimes its shape alone, where that is enough."""
    return thing.shape if thing in scene.unique("shape") and rng.random() < 0.4 else thing.name


def worded(rng: Random, asked: Asked) -> Asked:
    """The same with its question as somebody might type it."""
    return replace(asked, question=vary(rng, asked.question))
