"""Two or three images in one prompt, and what is the same or different."""

from random import Random

from training.sample import Asked, Media, SizeMix
from training.tasks.scenes import caption, caption_phrases, draw_size, scene_image, targets
from training.world import (
    COLORS,
    SHAPES,
    Scene,
    can_be_seen,
    draw_background,
    draw_look,
    draw_place,
    draw_scene,
    indefinite,
    make_thing,
    shade_of,
)

NUMBERS = ("first", "second", "third")


def pair_sample(rng: Random, mix: SizeMix, *, twins: float) -> tuple[tuple[Media, ...], list[Asked]]:
    """Two images of one thing each to compare (the share `twins`), or two or three to count and search."""
    scenes = _twins(rng, mix) if rng.random() < twins else _crowds(rng, mix, rng.choice((2, 2, 3)))
    single = len(scenes) == 2 and all(len(scene.things) == 1 for scene in scenes)
    asked = _compare(rng, scenes) if single else _search(rng, scenes)  # what is compared is said before the verdict
    which = rng.randrange(len(scenes))
    told = targets(scenes[which], *scenes[which].things, item=which)
    question = rng.choice(("Describe the {} image.", "Describe the {} picture.", "What is in the {} image?"))
    text, right = caption(scenes[which]), caption_phrases(scenes[which])
    asked.append(Asked("one of several", question.format(NUMBERS[which]), text, told, right))
    return tuple(scene_image(rng, scene) for scene in scenes), asked


def _twins(rng: Random, mix: SizeMix) -> list[Scene]:
    """One thing each; shape and color agree half of the time."""
    color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
    other_color = color if rng.random() < 0.5 else rng.choice(list(COLORS))
    other_shape = shape if rng.random() < 0.5 else rng.choice(SHAPES)
    return [_single(rng, mix, *names) for names in ((color, shape), (other_color, other_shape))]


def _single(rng: Random, mix: SizeMix, color: str, shape: str) -> Scene:
    size = draw_size(rng, mix)
    while True:
        background, rgb = draw_background(rng), shade_of(color, rng)
        if can_be_seen(rgb, color, background):
            look = draw_look(rng, shape, rgb, background)
            return Scene(size, background, (make_thing(size, color, shape, rgb, draw_place(rng, size, 0.9), look),))


def _crowds(rng: Random, mix: SizeMix, number: int) -> list[Scene]:
    return [draw_scene(rng, draw_size(rng, mix), count) for count in rng.choices((1, 2, 3, 4), k=number)]


def _compare(rng: Random, scenes: list[Scene]) -> list[Asked]:
    first, second = (scene.things[0] for scene in scenes)
    same_color = "yes" if first.color == second.color else "no"
    same_shape = "yes" if first.shape == second.shape else "no"
    color = rng.choice(
        ("Do both images show the same color?", "Do both pictures show the same color?", "Is the color the same?")
    )
    shape = rng.choice(
        ("Do both images show the same shape?", "Do both pictures show the same shape?", "Is the shape the same?")
    )
    both = (*targets(scenes[0], first, item=0), *targets(scenes[1], second, item=1))
    return [
        Asked("comparison", color, f"{first.color}, {second.color}: {same_color}", both),
        Asked("comparison", shape, f"{first.shape}, {second.shape}: {same_shape}", both),
    ]


def _search(rng: Random, scenes: list[Scene]) -> list[Asked]:
    counts = [len(scene.things) for scene in scenes]
    most = [NUMBERS[index] for index, count in enumerate(counts) if count == max(counts)]
    listed = ", ".join(str(count) for count in counts)
    asked = []
    if len(scenes) == 2:
        more = f"the {most[0]}" if len(most) == 1 else "both the same"
        asked = [
            Asked(
                "comparison",
                rng.choice(("Which picture has more objects?", "Which image has more objects?")),
                f"{listed}: {more}",
            )
        ]
    elif len(most) == 1:
        asked = [
            Asked(
                "comparison",
                rng.choice(("Which picture has the most objects?", "Which image has the most objects?")),
                f"{listed}: the {most[0]}",
            )
        ]
    for which in rng.sample(range(len(scenes)), len(scenes)):
        elsewhere = {thing.name for index, scene in enumerate(scenes) if index != which for thing in scene.things}
        own = [thing for thing in scenes[which].things if thing.name not in elsewhere]
        if own:
            thing = rng.choice(own)
            told = targets(scenes[which], thing, item=which)
            question = f"Which {rng.choice(('image', 'picture'))} shows {indefinite(thing.name)}?"
            asked.append(Asked("comparison", question, f"the {NUMBERS[which]}", told))
            break
    return asked
