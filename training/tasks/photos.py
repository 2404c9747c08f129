"""Photographs: what the model has no words for, shown so that it learns to say so."""

from functools import cache
from random import Random

import numpy as np
from skimage import data
from sklearn.datasets import load_sample_images

from training.drawing import Pixels, resize
from training.sample import Asked, Medium, SizeMix, Split, picture
from training.tasks.scenes import OUTSIDE, draw_size

_QUESTIONS = (
    "Describe the picture.",
    "What do you see?",
    "What is in this picture?",
    "What is this?",
    "Where was this taken?",
)


@cache
def _photos(split: Split) -> tuple[Pixels, ...]:
    """The sample photographs of scikit-image train, the two of scikit-learn are held out."""
    if split == "held-out":
        return tuple(load_sample_images().images)
    return tuple(
        np.asarray(load())[..., :3] for load in (data.astronaut, data.cat, data.coffee, data.rocket, data.retina)
    )


def photo_sample(rng: Random, mix: SizeMix, split: Split) -> tuple[Medium, list[Asked]]:
    """A random part of a photograph, and the admission that the model does not know it."""
    photo = rng.choice(_photos(split))
    height, width = photo.shape[:2]
    side = int(min(height, width) * rng.uniform(0.35, 1.0))
    top, left = rng.randint(0, height - side), rng.randint(0, width - side)
    part = photo[top : top + side, left : left + side]
    if rng.random() < 0.5:
        part = np.ascontiguousarray(part[:, ::-1])
    return picture(resize(part, draw_size(rng, mix))), [Asked("photo", rng.choice(_QUESTIONS), OUTSIDE)]
