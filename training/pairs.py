"""Two pictures side by side in one prompt, and what is the same or different."""

from random import Random

from training.sample import Asked, Medium, SizeMix
from training.scenes import caption, draw_size, scene_picture
from training.world import COLORS, SHAPES, Scene, draw_background, draw_scene, draw_thing, indefinite

NUMBERS = ("first", "second")


def pair_sample(rng: Random, mix: SizeMix) -> tuple[tuple[Medium, Medium], list[Asked]]:
    """Two pictures, either of one thing each (to compare) or of several (to count and search)."""
    scenes = _twins(rng, mix) if rng.random() < 0.5 else _crowds(rng, mix)
    asked = _compare(rng, scenes) if len(scenes[0].things) == len(scenes[1].things) == 1 else _search(rng, scenes)
    which = rng.randrange(2)
    asked.append(Asked("one of two", f"Describe the {NUMBERS[which]} picture.", caption(scenes[which])))
    media = (scene_picture(rng, scenes[0]), scene_picture(rng, scenes[1]))
    return media, asked


def _twins(rng: Random, mix: SizeMix) -> tuple[Scene, Scene]:
    """One thing each; shape and colour agree half of the time."""
    color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
    other_color = color if rng.random() < 0.5 else rng.choice(list(COLORS))
    other_shape = shape if rng.random() < 0.5 else rng.choice(SHAPES)
    scenes = []
    for name, kind in ((color, shape), (other_color, other_shape)):
        size = draw_size(rng, mix)
        thing = draw_thing(rng, size, rng.randrange(9), name, kind)
        scenes.append(Scene(size, *draw_background(rng, (name,)), (thing,)))
    return scenes[0], scenes[1]


def _crowds(rng: Random, mix: SizeMix) -> tuple[Scene, Scene]:
    counts = rng.choices((1, 2, 3, 4), k=2)
    first, second = (draw_scene(rng, draw_size(rng, mix, num_things=count), count) for count in counts)
    return first, second


def _compare(rng: Random, scenes: tuple[Scene, Scene]) -> list[Asked]:
    first, second = scenes[0].things[0], scenes[1].things[0]
    same_color = "yes" if first.color == second.color else "no"
    same_shape = "yes" if first.shape == second.shape else "no"
    color = rng.choice(("Do both pictures show the same color?", "Is the color the same?"))
    shape = rng.choice(("Do both pictures show the same shape?", "Is the shape the same?"))
    return [Asked("comparison", color, same_color), Asked("comparison", shape, same_shape)]


def _search(rng: Random, scenes: tuple[Scene, Scene]) -> list[Asked]:
    first, second = (len(scene.things) for scene in scenes)
    more = "the first" if first > second else "the second" if second > first else "both the same"
    asked = [Asked("comparison", "Which picture has more objects?", more)]
    for which in rng.sample((0, 1), 2):
        missing = {thing.name for thing in scenes[1 - which].things}
        own = [thing.name for thing in scenes[which].things if thing.name not in missing]
        if own:
            asked.append(
                Asked("comparison", f"Which picture shows {indefinite(rng.choice(own))}?", f"the {NUMBERS[which]}")
            )
            break
    return asked
