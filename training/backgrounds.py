"""What lies behind the things: plain, faded, grainy, striped, ruled, or a part of a photograph."""

from functools import cache
from pathlib import Path
from random import Random
from typing import Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from skimage import data
from sklearn.datasets import load_sample_images

from model_executor.processor.geometry import Size
from training.world import Background

Pixels = npt.NDArray[np.uint8]
Split = Literal["training", "held-out"]
_TRAINING = (
    "chelsea",
    "rocket",
    "retina",
    "brick",
    "gravel",
    "immunohistochemistry",
    "moon",
    "coins",
    "page",
    "cell",
    "microaneurysms",
)
_OF_MATPLOTLIB = ("grace_hopper.jpg", "Minduka_Present_Blue_Pack.png")
_HELD_OUT = ("astronaut", "camera", "coffee", "grass", "hubble_deep_field", "text", "clock", "horse", "logo")
_GRAIN_SIDE = 1024


@cache
def photographs(split: Split) -> tuple[Pixels, ...]:
    """Sample images of scikit-image (to train on, scikit-learn's and matplotlib's too), at most 640 px wide."""
    found = [np.asarray(getattr(data, name)()) for name in (_TRAINING if split == "training" else _HELD_OUT)]
    if split == "training":
        folder = Path(matplotlib.get_data_path()) / "sample_data"
        found += load_sample_images().images
        found += [np.asarray(Image.open(folder / name).convert("RGB")) for name in _OF_MATPLOTLIB]
    return tuple(np.asarray(_shrunk(Image.fromarray(_in_color(pixels)))) for pixels in found)


def _in_color(pixels: npt.NDArray[np.generic]) -> Pixels:
    levels = pixels.astype(np.uint8) if pixels.dtype != bool else pixels.astype(np.uint8) * 255
    return np.repeat(levels[..., None], 3, axis=2) if levels.ndim == 2 else np.ascontiguousarray(levels[..., :3])


def _shrunk(image: Image.Image) -> Image.Image:
    image.thumbnail((640, 640))
    return image


def part_of_photograph(rng: Random, split: Split, size: Size) -> Image.Image:
    """A random part of a photograph, sometimes turned around, at `size`."""
    photo = rng.choice(photographs(split))
    height, width = photo.shape[:2]
    high = min(height, width * size.height / size.width) * rng.uniform(0.35, 1.0)
    wide = high * size.width / size.height
    left, top = rng.random() * (width - wide), rng.random() * (height - high)
    image = Image.fromarray(photo).resize(
        (size.width, size.height), Image.Resampling.BILINEAR, (left, top, left + wide, top + high), reducing_gap=1.5
    )
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def draw_background(background: Background, size: Size) -> Image.Image:
    """The background's pixels."""
    rng = Random(background.seed)
    shape = (size.width, size.height)
    match background.kind:
        case "plain":
            return Image.new("RGB", shape, background.rgb)
        case "noise":
            flat = np.broadcast_to(np.array(background.rgb, np.uint8), (size.height, size.width, 3))
            return Image.fromarray(grain(flat, background.seed, background.strength))
        case "gradient":
            return _gradient(background, size, rng)
        case "photo":
            photo = part_of_photograph(rng, "training", size)
            return Image.blend(Image.new("RGB", shape, background.rgb), photo, background.strength * 0.6)
        case _:
            return _lines(background, size, rng)


def _gradient(background: Background, size: Size, rng: Random) -> Image.Image:
    corners = np.array([background.rgb, background.other], np.uint8)
    pixels = corners[:, None] if rng.random() < 0.5 else corners[None]
    if rng.random() < 0.3:
        middle = ((corners[0].astype(int) + corners[1]) // 2).astype(np.uint8)
        pixels = np.array([[corners[0], middle], [middle, corners[1]]])
    return Image.fromarray(pixels).resize((size.width, size.height), Image.Resampling.BILINEAR)


def _lines(background: Background, size: Size, rng: Random) -> Image.Image:
    """Broad stripes, or the thin lines of ruled or checked paper."""
    image = Image.new("RGB", (size.width, size.height), background.rgb)
    pen = ImageDraw.Draw(image)
    step = max(5, int(min(size.height, size.width) * rng.uniform(0.05, 0.15)))
    width = step // 2 if background.kind == "stripes" else 1
    if rng.random() < 0.6:
        for y in range(step // 2, size.height, step):
            pen.line((0, y, size.width, y), background.other, width)
    if background.kind == "paper" or rng.random() < 0.4:
        for x in range(step // 2, size.width, step):
            pen.line((x, 0, x, size.height), background.other, width)
    return image


@cache
def _grains() -> npt.NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal((_GRAIN_SIDE, _GRAIN_SIDE), np.float32)


def grain(pixels: Pixels, seed: int, strength: float) -> Pixels:
    """`pixels` with gray noise of that standard deviation."""
    height, width = pixels.shape[:2]
    rng = Random(seed)
    top, left = rng.randint(0, max(0, _GRAIN_SIDE - height)), rng.randint(0, max(0, _GRAIN_SIDE - width))
    noise = _grains()[top : top + height, left : left + width, None] * np.float32(strength)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)
