"""Scenes, printed text and handwriting to pixels: uint8 [H, W, 3], RGB, 0..255.

Images are drawn at a source size and later resized to the model's, as a client's are; a share goes through JPEG, is
blurred, rescaled or grainy.
"""

import io
import math
from functools import cache
from pathlib import Path
from random import Random

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_digits

from model_executor.processor.geometry import Size
from training.backgrounds import draw_background, grain
from training.world import Rgb, Scene, Thing

Pixels = npt.NDArray[np.uint8]
Font = ImageFont.FreeTypeFont
Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in source pixels."""
Points = list[tuple[float, float]]

FONT_FILES = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSansMono-Oblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneralItalic.ttf",
    "cmss10.ttf",
    "cmr10.ttf",
    "cmtt10.ttf",
    "cmb10.ttf",
)
"""Fonts that matplotlib ships; Pillow's built-in one is added to them."""
HELD_OUT_EVERY = 5
"""Every fifth scan of `load_digits` is never trained on."""
Sprite = tuple[Image.Image, Rgb | Image.Image, tuple[int, int]]
"""What is pasted: where it shows (mode L), its color or its pixels, and its corner, relative to the thing's."""


def draw(scene: Scene) -> Pixels:
    """The image of a scene."""
    image = draw_background(scene.background, scene.size)
    for thing in scene.things:
        paste(image, thing, sprites(thing))
    return np.asarray(image)


def paste(image: Image.Image, thing: Thing, parts: list[Sprite]) -> None:
    """Draw a thing's `sprites` where it lies; parts outside of the image are cut."""
    x, y = math.floor(thing.left), math.floor(thing.top)
    for mask, ink, (dx, dy) in parts:
        image.paste(ink, (x + dx, y + dy, x + dx + mask.width, y + dy + mask.height), mask)


def sprites(thing: Thing) -> list[Sprite]:
    """The pieces a thing is drawn of, in order: what fills it, and its line."""
    look = thing.look
    scale = 1 if not look.smooth else 2 if thing.width > 90 else 3
    pad = 2
    across, down = thing.left % 1 + pad, thing.top % 1 + pad
    size = (int(thing.width + across) + pad + 1, int(thing.height + down) + pad + 1)
    stroke = look.stroke * thing.width
    inset = stroke / 2 if look.stroke else 0.0
    points = [
        (
            (across + inset + x * (thing.width - 2 * inset)) * scale,
            (down + inset + y * (thing.height - 2 * inset)) * scale,
        )
        for x, y in _path(thing)
    ]
    if scale == 1:
        points = [(x - 0.5, y - 0.5) for x, y in points]
    found = []
    if look.filled:
        mask = _mask(size, scale)
        pen = ImageDraw.Draw(mask)
        if thing.shape == "ring":
            half = len(points) // 2
            pen.polygon(points[:half], fill=255)
            pen.polygon(points[half:], fill=0)
        else:
            pen.polygon(points, fill=255)
        mask = mask.reduce(scale) if scale > 1 else mask
        found.append((mask, _faded(thing, mask.size) if look.fade else thing.rgb, (-pad, -pad)))
    if look.stroke:
        mask = _mask(size, scale)
        width = max(1, round(stroke * scale))
        ImageDraw.Draw(mask).line([*points, points[0], points[1]], fill=255, width=width, joint="curve")
        mask = mask.reduce(scale) if scale > 1 else mask
        found.append((mask, look.outline or thing.rgb, (-pad, -pad)))
    return found


def _mask(size: tuple[int, int], scale: int) -> Image.Image:
    return Image.new("L", (size[0] * scale, size[1] * scale))


def _faded(thing: Thing, size: tuple[int, int]) -> Image.Image:
    shares = np.linspace(1, 1 - thing.look.fade, size[1])[:, None, None]
    return Image.fromarray(np.broadcast_to(np.array(thing.rgb) * shares, (size[1], size[0], 3)).astype(np.uint8))


def _path(thing: Thing) -> Points:
    """The outline in the unit square, turned and wobbled as the look says, touching all four sides."""
    look = thing.look
    points = outline(thing.shape, round(look.form, 1))
    if not look.angle and not look.wobble:
        return list(points)
    xy = np.array(points)
    if thing.shape != "ring" and look.wobble:
        xy = _densely(xy)
    if look.angle:
        angle = math.radians(look.angle)
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        xy = (xy - 0.5) @ turn
    if look.wobble:
        rng = np.random.default_rng(int(thing.left * 977 + thing.top * 7919) + int(look.form * 1e6))
        steps = np.linspace(0, 2 * np.pi, len(xy), endpoint=False)
        for order in (2, 3, 5):
            phases = rng.uniform(0, 2 * np.pi, 2)
            xy = xy + look.wobble * np.stack([np.sin(order * steps + phase) for phase in phases], axis=1)
    low, high = xy.min(0), xy.max(0)
    return [(float(x), float(y)) for x, y in (xy - low) / (high - low)]


def _densely(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The same closed line with at least 40 corners."""
    pieces = max(1, 40 // len(xy))
    shares = np.arange(pieces)[:, None, None] / pieces
    between = xy[None] * (1 - shares) + np.roll(xy, -1, axis=0)[None] * shares
    return between.transpose(1, 0, 2).reshape(-1, 2)


@cache
def outline(shape: str, form: float) -> tuple[tuple[float, float], ...]:
    """The corners of a shape in the unit square, y downwards, touching all four sides.

    Of a ring, the first half goes around its outer edge and the second half around its inner one.

    Args:
        shape: one of `world.SHAPES`.
        form: 0..1: thin or thick arms of a cross, points of a star, band of a ring; a slim or broad diamond.
    """
    circle = [(0.5 + math.sin(i * math.pi / 24) / 2, 0.5 - math.cos(i * math.pi / 24) / 2) for i in range(48)]
    match shape:
        case "circle":
            corners = circle
        case "ring":
            hole = 1 - 2 * (0.14 + 0.14 * form)
            return (*circle, *((0.5 + (x - 0.5) * hole, 0.5 + (y - 0.5) * hole) for x, y in circle))
        case "square":
            corners = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
        case "triangle":
            peak = 0.5 if form < 0.8 else 0.5 + 2.5 * (form - 0.8) * (1 if form < 0.95 else -1)
            corners = [(peak, 0.0), (1.0, 1.0), (0.0, 1.0)]
        case "diamond":
            corners = [(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)]
        case "cross":
            a = 0.4 - 0.1 * form
            b = 1 - a
            corners = [(a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b), (b, 1), (a, 1), (a, b), (0, b), (0, a), (a, a)]
        case "star":
            inner = 0.36 + 0.16 * form
            corners = [
                (radius * math.sin(i * math.pi / 5), -radius * math.cos(i * math.pi / 5))
                for i, radius in ((i, 1.0 if i % 2 == 0 else inner) for i in range(10))
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


def through_artifacts(pixels: Pixels, rng: Random, share: float = 0.3) -> Pixels:
    """`pixels` after what images go through on their way, or (most often) as they are."""
    if rng.random() >= share:
        return pixels
    match rng.choices(("jpeg", "rescaled", "blurred", "grainy"), (4, 2, 1, 2))[0]:
        case "jpeg":
            return through_jpeg(pixels, rng)
        case "rescaled":
            height, width = pixels.shape[:2]
            factor = rng.uniform(0.6, 0.9)
            small = resize(pixels, Size(int(height * factor), int(width * factor)))
            return resize(small, Size(height, width))
        case "blurred":
            radius = rng.uniform(0.3, 0.005 * min(pixels.shape[:2]))
            return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(max(0.3, radius))))
        case _:
            return grain(pixels, rng.randrange(1 << 30), rng.uniform(3, 14))


def through_jpeg(pixels: Pixels, rng: Random) -> Pixels:
    """`pixels` after a JPEG round trip at a random quality."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=rng.randint(50, 95))
    return np.asarray(Image.open(buffer).convert("RGB"))


def draw_text(
    rng: Random, lines: tuple[str, ...], height_px: int, ink: Rgb, paper: Image.Image | Rgb, font: Font | None = None
) -> tuple[Pixels, list[Box]]:
    """An image of lines of text in a random font, with random margins, and the box of each character in order.

    Args:
        rng: where chance comes from.
        lines: what is printed.
        height_px: the font's size in source pixels; margins follow it.
        ink: color of the letters.
        paper: color of the background.
        font: instead of a random one.
    """
    font = font or _font(rng.randrange(len(FONT_FILES) + 1), height_px)
    boxes = [font.getbbox(line) for line in lines]
    left, width = min(box[0] for box in boxes), max(box[2] for box in boxes)
    pitch = int(height_px * rng.uniform(1.1, 1.5))
    top = boxes[0][1]
    height = pitch * (len(lines) - 1) + boxes[-1][3] - top
    margins = [height_px * rng.uniform(0.1, 0.8) for _ in range(4)]
    size = (int(width - left + margins[0] + margins[1]), int(height + margins[2] + margins[3]))
    image = Image.new("RGB", size, paper) if isinstance(paper, tuple) else paper.resize(size)
    pen, found = ImageDraw.Draw(image), []
    for number, (line, box) in enumerate(zip(lines, boxes, strict=True)):
        x, y = margins[0] - left, margins[2] - top + number * pitch
        pen.text((x, y), line, font=font, fill=ink)
        ends = [x + font.getlength(line[:length]) for length in range(len(line) + 1)]
        found += [(ends[i], y + box[1], ends[i + 1], y + box[3]) for i in range(len(line))]
    return np.asarray(image), found


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


def draw_digits(rng: Random, number: int, side_px: int, *, held_out: bool) -> tuple[Pixels, str, list[Box]]:
    """Scanned handwritten digits side by side on squares of about `side_px`, which they are, and their boxes.

    Source: scikit-learn `load_digits` (8x8 scans of the UCI optical recognition set).
    """
    images, labels = _scans(held_out=held_out)
    step = side_px if number == 1 else int(side_px * rng.uniform(0.62, 0.9))
    canvas = Image.new("L", (side_px + step * (number - 1), side_px))
    text, boxes = "", []
    for place in range(number):
        index = rng.randrange(len(labels))
        scan = int(side_px * (rng.uniform(0.6, 0.95) if number == 1 else rng.uniform(0.7, 0.9)))
        strokes = Image.fromarray(images[index]).resize((scan, scan), Image.Resampling.BICUBIC)
        x, y = place * step + rng.randint(0, side_px - scan), rng.randint(0, side_px - scan)
        x = x if number == 1 else place * step + (side_px - scan) // 2
        canvas.paste(255, (x, y, x + scan, y + scan), strokes)
        text += str(labels[index])
        boxes.append((float(x), float(y), float(x + scan), float(y + scan)))
    gray = canvas if rng.random() < 0.4 else canvas.point(lambda value: 255 - value)
    return np.asarray(gray.convert("RGB")), text, boxes


def resize(pixels: Pixels, size: Size) -> Pixels:
    """`pixels` at `size`, bicubic with antialias: the rule of the server's own images."""
    if pixels.shape[:2] == (size.height, size.width):
        return pixels
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((size.width, size.height), Image.Resampling.BICUBIC, reducing_gap=2.0))
