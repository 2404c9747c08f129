"""Seeded samples: which kind, how large, and in what conversation, by a stage's mix.

A sample depends on nothing but its seed, so a resumed run sees what an uninterrupted one would have seen. Training
never repeats a sample; held-out samples have seeds of their own, scans and photographs of their own.
"""

from random import Random

from training.recipe import Stage
from training.sample import Asked, Media, Sample, Split, converse
from training.tasks import chinese, scenes
from training.tasks.compare import pair_sample
from training.tasks.photos import outside_sample
from training.tasks.reading import handwriting_sample, print_sample
from training.tasks.scenes import random_scene, scene_image, worded
from training.tasks.small_talk import talk_sample
from training.tasks.videos import video_sample
from training.world import Scene

_SYSTEMS = (
    "You are Tessera Tiny.",
    "Answer briefly.",
    "You are a careful assistant that looks at images.",
    "Be kind and exact.",
)
_MEDIA_LAST = 0.1
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
    asked = [worded(rng, item) for item in asked]
    system = rng.choice(_SYSTEMS) if rng.random() < stage.systems else None
    media_first = rng.random() >= _MEDIA_LAST
    earlier = rng.randint(1, 2) if rng.random() < stage.turns else 0
    if not media_first:
        asked = [rng.choice(asked)]
    elif earlier:
        asked = asked[:4]
    return converse(media, asked, system=system, media_first=media_first, earlier=earlier)


def _draw(kind: str, stage: Stage, rng: Random, split: Split) -> tuple[tuple[Media, ...], list[Asked]]:
    match kind:
        case "scene":
            return _scene(stage, rng)
        case "pair":
            return pair_sample(rng, stage.sizes, twins=stage.twins)
        case "talk":
            return (), talk_sample(rng)
        case "reading":
            item, asked = print_sample(rng, stage.letters, words=stage.words)
        case "handwriting":
            item, asked = handwriting_sample(rng, split)
        case "outside":
            item, asked = outside_sample(rng, stage.sizes, split)
        case "video":
            item, asked = video_sample(rng, *stage.video_frames, stage.videos)
        case _:
            raise ValueError(f"no samples of kind {kind!r}")
    return (item,), asked


def _scene(stage: Stage, rng: Random) -> tuple[tuple[Media, ...], list[Asked]]:
    scene = random_scene(rng, stage.sizes, stage.things, stage.neat)
    kinds = [kind for kind, number in stage.questions.items() for _ in range(int(number) + (rng.random() < number % 1))]
    return (scene_image(rng, scene),), ask(rng, scene, kinds, stage.chinese) or ask(rng, scene, ["caption"], 0)


def ask(rng: Random, scene: Scene, kinds: list[str], in_chinese: float) -> list[Asked]:
    """A question of each of `kinds`, without those the scene cannot answer and without repeats."""
    asked = []
    for kind in kinds:
        questions = chinese.QUESTIONS if kind in chinese.QUESTIONS and rng.random() < in_chinese else scenes.QUESTIONS
        question = questions[kind](rng, scene)
        if question is not None:
            asked.append(question)
    return list({item.question: item for item in asked}.values())
