"""Printed numbers and words, and handwritten digits."""

from collections.abc import Sequence
from random import Random

from model_executor.processor.geometry import Size
from training.drawing import draw_digit, draw_text, resize, through_jpeg
from training.sample import Asked, Medium, Region, Split, Target, picture
from training.world import COLORS, Rgb, jitter

_READ = ("What does it say?", "Read the text.", "What is written here?", "What is printed in the picture?")
_NUMBER = ("Which number is this?", "Read the number.", "What number do you see?")
_DIGIT = ("Which digit is this?", "Which handwritten digit is this?", "What digit is written here by hand?")
_CONSONANTS, _VOWELS, _LETTERS = "BCDFGHJKLMNPRSTVWXZ", "AEIOUY", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DARK = ("red", "green", "blue", "purple", "brown", "black")
_PAPERS: tuple[Rgb, ...] = ((255, 255, 255), (245, 240, 225), (225, 235, 245), (250, 250, 210))
MAX_DIGITS = 4


def draw_number(rng: Random, lengths: Sequence[float]) -> str:
    """One to four digits, by the weights in `lengths`."""
    weights = lengths[:MAX_DIGITS]
    return "".join(rng.choices("0123456789", k=rng.choices(range(1, len(weights) + 1), weights)[0]))


def draw_word(rng: Random, lengths: Sequence[float]) -> str:
    """One to six capitals by the weights in `lengths`: any letters, or consonants and vowels in turn."""
    length = rng.choices(range(1, len(lengths) + 1), lengths)[0]
    if rng.random() < 0.5:
        return "".join(rng.choices(_LETTERS, k=length))
    start = rng.randint(0, 1)
    return "".join(rng.choice(_VOWELS if (start + i) % 2 else _CONSONANTS) for i in range(length))


def draw_print(rng: Random, text: str) -> Medium:
    """A picture of `text`: any font, 30 to 56 px at the model's size, dark on light or the reverse."""
    ink, paper = jitter(COLORS[rng.choice(_DARK)], rng), rng.choice(_PAPERS)
    if rng.random() < 0.6:
        ink = jitter((15, 15, 15), rng)
    if rng.random() < 0.15:
        ink, paper = paper, ink
    height_px = rng.randint(30, 56)
    oversampling = rng.choice((1, 1, 2))
    pixels, boxes = draw_text(rng, text, height_px * oversampling, ink, paper)
    height, width = pixels.shape[0] // oversampling, pixels.shape[1] // oversampling
    pixels = resize(pixels, Size(height, width))
    regions = tuple(
        Region(left / oversampling, top / oversampling, right / oversampling, bottom / oversampling, None, character)
        for (left, top, right, bottom), character in zip(boxes, text, strict=True)
    )
    return picture(through_jpeg(pixels, rng) if rng.random() < 0.15 else pixels, regions)


def print_sample(rng: Random, lengths: Sequence[float], *, words: float) -> tuple[Medium, list[Asked]]:
    """Printed text and the question for it.

    Args:
        rng: where chance comes from.
        lengths: weights of one, two, … characters.
        words: share of words among words and numbers.
    """
    if rng.random() < words:
        word = draw_word(rng, lengths)
        return draw_print(rng, word), [Asked("word", rng.choice(_READ), word, _each(word))]
    number = draw_number(rng, lengths)
    return draw_print(rng, number), [Asked("number", rng.choice(_READ + _NUMBER), number, _each(number))]


def _each(text: str) -> tuple[Target, ...]:
    """Every character is a token of the answer and a region of the picture."""
    return tuple((0, index) for index in range(len(text)))


def handwriting_sample(rng: Random, split: Split) -> tuple[Medium, list[Asked]]:
    """A handwritten digit and the question for it; held-out scans never train."""
    side = rng.choice((56, 56, 56, 84, 112))
    pixels, digit = draw_digit(rng, side, held_out=split == "held-out")
    whole = Region(0, 0, side, side, None, str(digit))
    return picture(pixels, (whole,)), [Asked("handwriting", rng.choice(_DIGIT), str(digit))]
