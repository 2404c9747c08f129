"""Scenes, printed text and handwriting to pixels: uint8 [H, W, 3], RGB, 0..255.

Pictures are drawn at a source size and later shrunk to the model's, as a client's are; a share goes through JPEG.
"""

import io
import math
from functools import cache
from pathlib import Path
from random import Random

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

from model_executor.processor.geometry import Size
from training.world import Rgb, Scene, Thing

Pixels = npt.NDArray[np.uint8]
Font = ImageFont.FreeTypeFont
Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in source pixels."""

FONT_FILES = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "cmss10.ttf",
    "cmr10.ttf",
    "cmtt10.ttf",
)
"""Fonts that matplotlib ships; Pillow's built-in one is added to them."""
HELD_OUT_EVERY = 5
"""Every fifth scan of `load_digits` is never trained on."""


def draw(scene: Scene) -> Pixels:
    """The picture of a scene."""
    picture = Image.new("RGB", (scene.size.width, scene.size.height), scene.background_rgb)
    pen = ImageDraw.Draw(picture)
    for thing in scene.things:
        _draw_thing(pen, thing, scene.background_rgb)
    return np.asarray(picture)


def through_jpeg(pixels: Pixels, rng: Random) -> Pixels:
    """`pixels` after a JPEG round trip at a random quality."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=rng.randint(60, 95))
    return np.asarray(Image.open(buffer).convert("RGB"))


def _draw_thing(pen: ImageDraw.ImageDraw, thing: Thing, background: Rgb) -> None:
    left, top, side = thing.left, thing.top, thing.diameter
    box = (left, top, left + side - 1, top + side - 1)
    match thing.shape:
        case "circle":
            pen.ellipse(box, fill=thing.rgb)
        case "ring":
            inset = side * 0.24
            pen.ellipse(box, fill=thing.rgb)
            pen.ellipse((left + inset, top + inset, left + side - 1 - inset, top + side - 1 - inset), fill=background)
        case "square":
            pen.rectangle(box, fill=thing.rgb)
        case shape:
            points = [(left + x * (side - 1), top + y * (side - 1)) for x, y in _outline(shape)]
            pen.polygon(points, fill=thing.rgb)


@cache
def _outline(shape: str) -> tuple[tuple[float, float], ...]:
    """The corners of a shape in the unit square, y downwards, touching all four sides."""
    match shape:
        case "triangle":
            corners = [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)]
        case "diamond":
            corners = [(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)]
        case "cross":
            a, b = 0.33, 0.67
            corners = [(a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b), (b, 1), (a, 1), (a, b), (0, b), (0, a), (a, a)]
        case "star":
            corners = [
                (radius * math.sin(i * math.pi / 5), -radius * math.cos(i * math.pi / 5))
                for i, radius in ((i, 1.0 if i % 2 == 0 else 0.4) for i in range(10))
            ]
        case "heart":
            angles = [i * math.pi / 16 for i in range(32)]
            corners = [
                (
                    16 * math.sin(a) ** 3,
                    -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)),
                )
                for a in angles
            ]
        case _:
            raise ValueError(f"no outline for {shape!r}")
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return tuple(((x - min(xs)) / (max(xs) - min(xs)), (y - min(ys)) / (max(ys) - min(ys))) for x, y in corners)


def draw_text(rng: Random, text: str, height_px: int, ink: Rgb, paper: Rgb) -> tuple[Pixels, list[Box]]:
    """A picture of `text` on one line in a random font, with random margins, and the box of each character.

    Args:
        rng: where chance comes from.
        text: what is printed.
        height_px: the font's size in source pixels; margins follow it.
        ink: colour of the letters.
        paper: colour of the background.
    """
    font = _font(rng.randrange(len(FONT_FILES) + 1), height_px)
    left, top, right, bottom = font.getbbox(text)
    width, height = right - left, bottom - top
    margins = [height_px * rng.uniform(0.15, 0.8) for _ in range(4)]
    picture = Image.new("RGB", (int(width + margins[0] + margins[1]), int(height + margins[2] + margins[3])), paper)
    ImageDraw.Draw(picture).text((margins[0] - left, margins[2] - top), text, font=font, fill=ink)
    ends = [margins[0] + font.getlength(text[:length]) for length in range(len(text) + 1)]
    boxes: list[Box] = [(ends[i], margins[2], ends[i + 1], margins[2] + height) for i in range(len(text))]
    return np.asarray(picture), boxes


@cache
def _font(index: int, height_px: int) -> Font:
    if index == len(FONT_FILES):
        built_in = ImageFont.load_default(height_px)
        if not isinstance(built_in, ImageFont.FreeTypeFont):
            raise RuntimeError("this Pillow was built without FreeType")
        return built_in
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / FONT_FILES[index]), height_px)


@cache
def _scans(*, held_out: bool) -> tuple[Pixels, npt.NDArray[np.int64]]:
    digits = load_digits()
    chosen = (np.arange(len(digits.target)) % HELD_OUT_EVERY == 0) == held_out
    return (digits.images[chosen] * (255 / 16)).round().astype(np.uint8), digits.target[chosen]


def draw_digit(rng: Random, side_px: int, *, held_out: bool) -> tuple[Pixels, int]:
    """A scanned handwritten digit enlarged onto a square of `side_px`, and which digit it is.

    Source: scikit-learn `load_digits` (8x8 scans of the UCI optical recognition set).
    """
    images, labels = _scans(held_out=held_out)
    index = rng.randrange(len(labels))
    strokes = Image.fromarray(images[index])
    scan = int(side_px * rng.uniform(0.6, 0.95))
    canvas = Image.new("L", (side_px, side_px))
    corner = (rng.randint(0, side_px - scan), rng.randint(0, side_px - scan))
    canvas.paste(strokes.resize((scan, scan), Image.Resampling.BICUBIC), corner)
    gray = canvas if rng.random() < 0.4 else canvas.point(lambda value: 255 - value)
    return np.asarray(gray.convert("RGB")), int(labels[index])


def resize(pixels: Pixels, size: Size) -> Pixels:
    """`pixels` at `size`, bicubic with antialias: the rule of the server's own pictures."""
    if pixels.shape[:2] == (size.height, size.width):
        return pixels
    picture = Image.fromarray(pixels).resize((size.width, size.height), Image.Resampling.BICUBIC)
    return np.asarray(picture)
