"""What the model has no words for, shown so that it learns to say so: photographs, screens, pages, patterns."""

from random import Random

import numpy as np
from PIL import Image, ImageDraw

from model_executor.processor.geometry import Size
from training.backgrounds import part_of_photograph
from training.drawing import Pixels, draw_text, through_artifacts
from training.sample import Asked, Media, SizeMix, Split, image
from training.tasks import chinese
from training.tasks.reading import WORDS
from training.tasks.scenes import OUTSIDE, draw_size
from training.world import Rgb, jitter

_QUESTIONS = (
    "Describe the picture.",
    "Describe the image.",
    "What do you see?",
    "What is in this picture?",
    "What is this?",
    "Where was this taken?",
    "What does the image show?",
    "Tell me what you see.",
    "What is happening here?",
    "Who is this?",
    "What can you see here?",
    "What kind of place is this?",
)
_QUESTIONS_CHINESE = ("描述这张图片。", "图片里有什么？", "你看到了什么？", "这是什么？")


def outside_sample(rng: Random, mix: SizeMix, split: Split) -> tuple[Media, list[Asked]]:
    """An image of none of the things the model knows, and the admission that it does not know it.

    Held-out ones are parts of photographs that are not trained on, and screens and pages of other seeds.
    """
    size = draw_size(rng, mix)
    kind = rng.choices(("photo", "screen", "page", "pattern", "collage"), (6, 2, 1.5, 0.7, 1))[0]
    match kind:
        case "photo":
            photo = _toned(rng, part_of_photograph(rng, split, size))
            if split == "training" and rng.random() < 0.25:
                photo = Image.blend(photo, _toned(rng, part_of_photograph(rng, split, size)), rng.uniform(0.3, 0.7))
            pixels = np.asarray(photo)
        case "screen":
            pixels = np.asarray(_screen(rng, size))
        case "page":
            pixels = np.asarray(_page(rng, size))
        case "collage":
            pixels = np.asarray(_collage(rng, size))
        case _:
            pixels = _pattern(rng, size)
    task = {"photo": "photo", "screen": "screen or page", "page": "screen or page"}.get(kind, "other outside")
    asked = [Asked(task, question, OUTSIDE) for question in rng.sample(_QUESTIONS, 2)]
    if rng.random() < 0.3:
        asked.append(Asked(f"{task}, Chinese", rng.choice(_QUESTIONS_CHINESE), chinese.OUTSIDE))
    return image(through_artifacts(pixels, rng), ()), asked


def _toned(rng: Random, photo: Image.Image) -> Image.Image:
    """The photograph in other light: brighter, darker, turned, its channels exchanged, or gray."""
    match rng.randrange(6):
        case 0:
            return photo.convert("L").convert("RGB")
        case 1:
            gain = rng.uniform(0.6, 1.5)
            return photo.point(lambda value: int(min(255, value * gain)))
        case 2:
            channels = list(photo.split())
            rng.shuffle(channels)
            return Image.merge("RGB", channels)
        case 3:
            return photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        case _:
            return photo


def _screen(rng: Random, size: Size) -> Image.Image:
    """Something like a window: bars, boxes, buttons and lines of small print."""
    light = rng.random() < 0.7
    paper = jitter((242, 242, 245) if light else (32, 34, 40), rng)
    screen = Image.new("RGB", (size.width, size.height), paper)
    pen = ImageDraw.Draw(screen)
    bar = max(8, size.height // rng.randint(8, 14))
    pen.rectangle((0, 0, size.width, bar), fill=_any_color(rng))
    if rng.random() < 0.6:
        pen.rectangle((0, bar, size.width // rng.randint(4, 6), size.height), fill=jitter(paper, rng, 25))
    for _ in range(rng.randint(6, 16)):
        x, y = rng.randint(0, size.width), rng.randint(bar, size.height)
        box = (x, y, x + rng.randint(10, size.width // 2), y + rng.randint(4, max(6, size.height // 6)))
        pen.rounded_rectangle(
            box,
            radius=rng.choice((0, 0, 2, 3)),
            fill=_any_color(rng) if rng.random() < 0.4 else paper,
            outline=jitter((128, 128, 128), rng, 60),
        )
    ink = (20, 20, 20) if light else (230, 230, 230)
    for _ in range(rng.randint(5, 14)):
        pen.text((rng.randint(0, size.width // 2), rng.randint(0, size.height)), _prose(rng, 4), fill=ink)
    return screen


def _page(rng: Random, size: Size) -> Image.Image:
    """A page full of small print."""
    lines = tuple(_prose(rng, rng.randint(5, 9)) for _ in range(rng.randint(7, 14)))
    ink, paper = ((20, 20, 20), jitter((248, 246, 240), rng, 7)) if rng.random() < 0.85 else ((235,) * 3, (20,) * 3)
    pixels, _ = draw_text(rng, lines, rng.choice((12, 14, 16)), ink, paper)
    return Image.fromarray(pixels).resize((size.width, size.height), Image.Resampling.BILINEAR, reducing_gap=1.5)


def _prose(rng: Random, number: int) -> str:
    return " ".join(rng.choices(WORDS, k=number))


def _pattern(rng: Random, size: Size) -> Pixels:
    """Clouds of colors: noise of a few sizes, added up."""
    noise = np.random.default_rng(rng.randrange(1 << 30))
    total = np.zeros((size.height, size.width, 3), np.float32)
    for cells in rng.sample((2, 4, 8, 16, 32), 3):
        layer = Image.fromarray(noise.integers(0, 255, (cells, cells, 3), np.uint8))
        total += np.asarray(layer.resize((size.width, size.height), Image.Resampling.BICUBIC), np.float32) / 3
    return total.astype(np.uint8)


def _collage(rng: Random, size: Size) -> Image.Image:
    """Dozens of pieces and strokes of all colors, one over another."""
    canvas = Image.new("RGB", (size.width, size.height), _any_color(rng))
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.randint(14, 40)):
        around = rng.randint(0, size.width), rng.randint(0, size.height)
        reach = min(size.width, size.height) * rng.uniform(0.08, 0.6)
        corners = [tuple(c + rng.uniform(-reach, reach) for c in around) for _ in range(rng.randint(2, 6))]
        if len(corners) == 2 or rng.random() < 0.25:
            pen.line(corners, fill=_any_color(rng), width=rng.randint(1, 7))
        else:
            pen.polygon(corners, fill=_any_color(rng))
    return canvas


def _any_color(rng: Random) -> Rgb:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)
