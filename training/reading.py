"""Printed numbers and words, and handwritten digits."""

from random import Random

from model_executor.geometry import Size
from training.drawing import draw_digit, draw_text, resize, through_jpeg
from training.sample import Asked, Medium, Split, picture
from training.world import COLORS, Rgb, jitter

_READ = ("What does it say?", "Read the text.", "What is written here?", "What is printed in the picture?")
_NUMBER = ("Which number is this?", "Read the number.", "What number do you see?")
_DIGIT = ("Which digit is this?", "Which handwritten digit is this?", "What digit is written here by hand?")
_CONSONANTS, _VOWELS, _LETTERS = "BCDFGHJKLMNPRSTVWXZ", "AEIOUY", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DARK = ("red", "green", "blue", "purple", "brown", "black")
_PAPERS: tuple[Rgb, ...] = ((255, 255, 255), (245, 240, 225), (225, 235, 245), (250, 250, 210))
MAX_DIGITS, MAX_LETTERS = 4, 6


def draw_number(rng: Random) -> str:
    """One to four digits, long ones more often."""
    return "".join(rng.choices("0123456789", k=rng.choices((1, 2, 3, 4), (2, 2, 3, 3))[0]))


def draw_word(rng: Random) -> str:
    """One to six capitals: any letters, or consonants and vowels in turn, so that it can be spoken."""
    length = rng.choices((1, 2, 3, 4, 5, 6), (2, 2, 3, 3, 3, 3))[0]
    if rng.random() < 0.5:
        return "".join(rng.choices(_LETTERS, k=length))
    start = rng.randint(0, 1)
    return "".join(rng.choice(_VOWELS if (start + i) % 2 else _CONSONANTS) for i in range(length))


def draw_print(rng: Random, text: str) -> Medium:
    """A picture of `text`: any font, 18 to 40 px at the model's size, dark on light or the reverse."""
    ink, paper = jitter(COLORS[rng.choice(_DARK)], rng), rng.choice(_PAPERS)
    if rng.random() < 0.6:
        ink = jitter((15, 15, 15), rng)
    if rng.random() < 0.2:
        ink, paper = paper, ink
    height_px = rng.randint(18, 40)
    oversampling = rng.choice((1, 1, 2))
    pixels = draw_text(rng, text, height_px * oversampling, ink, paper)
    height, width = pixels.shape[0] // oversampling, pixels.shape[1] // oversampling
    pixels = resize(pixels, Size(height, width))
    return picture(through_jpeg(pixels, rng) if rng.random() < 0.15 else pixels)


def print_sample(rng: Random, *, words: float) -> tuple[Medium, list[Asked]]:
    """Printed text and the question for it.

    Args:
        rng: where chance comes from.
        words: share of words among words and numbers.
    """
    if rng.random() < words:
        word = draw_word(rng)
        return draw_print(rng, word), [Asked("word", rng.choice(_READ), word)]
    number = draw_number(rng)
    return draw_print(rng, number), [Asked("number", rng.choice(_READ + _NUMBER), number)]


def handwriting_sample(rng: Random, split: Split) -> tuple[Medium, list[Asked]]:
    """A handwritten digit and the question for it; held-out scans never train."""
    pixels, digit = draw_digit(rng, rng.choice((56, 56, 56, 84, 112)), held_out=split == "held-out")
    return picture(pixels), [Asked("handwriting", rng.choice(_DIGIT), str(digit))]
