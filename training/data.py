"""Seeded samples: which kind, how large, and in what conversation, by a stage's mix.

A sample depends on nothing but its seed, so a resumed run sees what an uninterrupted one would have seen. Training
never repeats a sample; held-out samples have seeds of their own, scans and photographs of their own.
"""

from random import Random

from training.recipe import Stage
from training.sample import Asked, Medium, Sample, Split, converse
from training.tasks.compare import pair_sample
from training.tasks.photos import photo_sample
from training.tasks.reading import handwriting_sample, print_sample
from training.tasks.scenes import ask, random_scene, scene_picture
from training.tasks.small_talk import talk_sample
from training.tasks.videos import clip_sample

_SYSTEMS = (
    "You are Tessera Tiny.",
    "Answer briefly.",
    "You are a careful assistant that looks at pictures.",
    "Be kind and exact.",
)
_MEDIA_LAST = 0.15
"""Share of samples whose media stand after the question."""


def draw_sample(stage: Stage, seed: str, split: Split = "training") -> Sample:
    """The sample of a seed.

    Args:
        stage: whose mix to draw from.
        seed: any text; equal seeds give equal samples.
        split: which scans and photographs may appear.
    """
    rng = Random(f"{split} {seed}")
    kind = rng.choices(list(stage.samples), list(stage.samples.values()))[0]
    media, asked = _draw(kind, stage, rng, split)
    system = rng.choice(_SYSTEMS) if rng.random() < stage.systems else None
    media_first = rng.random() >= _MEDIA_LAST
    earlier = rng.randint(1, 2) if rng.random() < stage.turns else 0
    if not media_first:
        asked = [rng.choice(asked)]
    return converse(media, asked, system=system, media_first=media_first, earlier=earlier)


def _draw(kind: str, stage: Stage, rng: Random, split: Split) -> tuple[tuple[Medium, ...], list[Asked]]:
    match kind:
        case "scene":
            return _scene(stage, rng)
        case "pair":
            return pair_sample(rng, stage.sizes, twins=stage.twins)
        case "talk":
            return (), talk_sample(rng)
        case "reading":
            medium, asked = print_sample(rng, stage.letters, words=stage.words)
        case "handwriting":
            medium, asked = handwriting_sample(rng, split)
        case "photo":
            medium, asked = photo_sample(rng, stage.sizes, split)
        case "clip":
            medium, asked = clip_sample(rng, *stage.clip_frames, stage.clips)
        case _:
            raise ValueError(f"no samples of kind {kind!r}")
    return (medium,), asked


def _scene(stage: Stage, rng: Random) -> tuple[tuple[Medium, ...], list[Asked]]:
    scene = random_scene(rng, stage.sizes, stage.things, stage.backgrounds)
    kinds = [kind for kind, number in stage.questions.items() for _ in range(int(number) + (rng.random() < number % 1))]
    asked = ask(rng, scene, kinds) or ask(rng, scene, ["caption"])
    return (scene_picture(rng, scene),), asked
