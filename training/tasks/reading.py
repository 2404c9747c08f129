"""Printed numbers and words, and handwritten digits."""

from collections.abc import Sequence
from random import Random
from typing import Literal

from PIL import Image, ImageFont

from model_executor.processor.geometry import Size
from training.backgrounds import draw_background as background_pixels
from training.drawing import draw_digits, draw_text, resize, through_artifacts
from training.sample import Asked, Media, Region, Split, Target, image
from training.world import COLORS, Background, Rgb, distance, draw_background, jitter, shade_of

_READ = (
    "What does it say?",
    "Read the text.",
    "What is written here?",
    "What is printed in the picture?",
    "Read this.",
    "What does the text say?",
    "Please transcribe the text.",
)
_NUMBER = ("Which number is this?", "Read the number.", "What number do you see?", "What number is shown?")
_DIGIT = ("Which digit is this?", "Which handwritten digit is this?", "What digit is written here by hand?")
_DIGITS = ("Which number is written by hand?", "Read the handwritten number.", "What number is written here?")
_READ_CHINESE = ("上面写了什么？", "读出文字。", "图片里写的是什么？")
_CONSONANTS, _VOWELS, _LETTERS = "BCDFGHJKLMNPRSTVWXZ", "AEIOUY", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
WORDS = (
    "about after again air all also an and animal answer apple are as ask back bag ball be because bed before begin "
    "big bird black blue boat book both box boy bread bring brown but by call can car cat change child city clean "
    "close coffee cold come computer cook could country cup day dear do dog door down draw drink each early east "
    "eat end every exit eye face family far fast father find fire first fish five flower food foot for four friend "
    "from game garden gate girl give go gold good great green ground half hand happy hard have head hello help her "
    "here high home hot hour house how ice idea if image in it job just keep key kind king know lamp land large "
    "last late learn left letter life light like line list little live long look love machine make man map market "
    "me milk mind money moon more morning mother mountain mouse move much music my name near never new next night "
    "no north not note now number of off office old on one only open or orange other our out over page paper park "
    "pen people phone picture place plane plant play please point press price queen question quick quiet rain read "
    "red rest rice right river road room round run sale salt same school sea second see sell send she shop short "
    "show side sign simple sing sister six sky sleep slow small snow so some song soon south stand star start "
    "station stop story street strong student summer sun sure table take tall tea tell ten test text thank that the "
    "them then there thing think this three time to today too town train tree true turn two under up use very voice "
    "wait walk wall want warm watch water way we week welcome well west what wheel when where white who why wind "
    "window winter with woman wood word work world write year yellow yes you young zebra zero zone "
).split()
Case = Literal["upper", "lower", "mixed"]
CASES: dict[Case, float] = {"upper": 0.4, "lower": 0.38, "mixed": 0.22}
MAX_DIGITS = 6


def draw_number(rng: Random, lengths: Sequence[float]) -> str:
    """One, two, … digits, by the weights in `lengths`."""
    weights = lengths[:MAX_DIGITS]
    return "".join(rng.choices("0123456789", k=rng.choices(range(1, len(weights) + 1), weights)[0]))


def draw_word(rng: Random, lengths: Sequence[float], case: Case) -> str:
    """A word of one, two, … letters by the weights in `lengths`: any letters, some that can be said, or a real word."""
    if case != "upper" and rng.random() < 0.35:
        word = rng.choice(WORDS)
    else:
        length = rng.choices(range(1, len(lengths) + 1), lengths)[0]
        start = rng.randint(0, 1)
        word = "".join(rng.choice(_VOWELS if (start + i) % 2 else _CONSONANTS) for i in range(length))
        if rng.random() < 0.5:
            word = "".join(rng.choices(_LETTERS, k=length))
    match case:
        case "upper":
            return word.upper()
        case "lower":
            return word.lower()
        case _:
            return word.capitalize()


def draw_print(rng: Random, lines: tuple[str, ...], font: ImageFont.FreeTypeFont | None = None) -> Media:
    """An image of lines of text: any font, 24 to 56 px, dark on light or the reverse, on some background."""
    ink, background = _ink_and_paper(rng)
    height_px = rng.randint(24, 56)
    oversampling = rng.choice((1, 1, 2))
    paper: Image.Image | Rgb = background.rgb
    if background.kind != "plain":
        paper = background_pixels(background, Size(96, 96 * (1 + max(map(len, lines)) // 3)))
    pixels, boxes = draw_text(rng, lines, height_px * oversampling, ink, paper, font)
    height, width = pixels.shape[0] // oversampling, pixels.shape[1] // oversampling
    pixels = resize(pixels, Size(height, width))
    regions = tuple(
        Region(left / oversampling, top / oversampling, right / oversampling, bottom / oversampling, None, character)
        for (left, top, right, bottom), character in zip(boxes, "".join(lines), strict=True)
    )
    return image(through_artifacts(pixels, rng), regions)


def _ink_and_paper(rng: Random) -> tuple[Rgb, Background]:
    if rng.random() < 0.6:
        background = Background(None, jitter(rng.choice(((255, 255, 255), (245, 240, 225), (225, 235, 245))), rng, 6))
    else:
        background = draw_background(rng, plain=0.5)
    while True:
        ink = jitter((15, 15, 15), rng) if rng.random() < 0.5 else shade_of(rng.choice(list(COLORS)), rng)
        if rng.random() < 0.15:
            ink, background = background.rgb, Background(None, ink)
        far = background.kind not in ("gradient", "stripes") or distance(ink, background.other) > 150
        if distance(ink, background.rgb) > 150 and far:
            return ink, background
        background = Background(None, (255, 255, 255) if sum(ink) < 380 else (0, 0, 0))


def print_sample(rng: Random, lengths: Sequence[float], *, words: float) -> tuple[Media, list[Asked]]:
    """Printed text and the question for it.

    Args:
        rng: where chance comes from.
        lengths: weights of one, two, … characters.
        words: share of words among words and numbers.
    """
    if rng.random() >= words:
        number = draw_number(rng, lengths)
        return draw_print(rng, (number,)), [_reading("number", rng.choice(_READ + _NUMBER), (number,))]
    return words_sample(rng, lengths)


def words_sample(
    rng: Random, lengths: Sequence[float], font: ImageFont.FreeTypeFont | None = None
) -> tuple[Media, list[Asked]]:
    """One to three lines of a word or two, all in capitals, in small letters, or begun by capitals."""
    case = rng.choices(list(CASES), list(CASES.values()))[0]
    number = rng.choices((1, 2, 3), (7, 2, 1))[0]
    lines = tuple(_line(rng, lengths, case, number) for _ in range(number))
    task = "lines" if number > 1 else {"upper": "word", "lower": "lower-case word", "mixed": "mixed-case word"}[case]
    questions = _READ_CHINESE if rng.random() < 0.1 else _READ
    return draw_print(rng, lines, font), [_reading(task, rng.choice(questions), lines)]


def _line(rng: Random, lengths: Sequence[float], case: Case, number: int) -> str:
    word = draw_word(rng, lengths, case)
    if (number == 1 and rng.random() < 0.85) or len(word) > 6:
        return word
    return f"{word} {draw_word(rng, lengths[:5], case)}"


def _reading(task: str, question: str, lines: tuple[str, ...]) -> Asked:
    """Every character is a token of the answer and a region of the image; line breaks are tokens only."""
    return Asked(task, question, "\n".join(lines), _each(lines), spelled=True)


def _each(lines: tuple[str, ...]) -> tuple[Target, ...]:
    """The region of each character of the answer; of a line break, that of the character after it."""
    found: list[Target] = []
    before = 0
    for number, line in enumerate(lines):
        found += [(0, before)] * (number > 0) + [(0, before + index) for index in range(len(line))]
        before += len(line)
    return tuple(found)


def handwriting_sample(rng: Random, split: Split) -> tuple[Media, list[Asked]]:
    """One or several handwritten digits and the question for them; held-out scans never train."""
    number = 1 if rng.random() < 0.5 else rng.randint(2, 5)
    side = rng.choice((56, 56, 56, 84, 112)) if number == 1 else rng.randint(40, 90)
    pixels, digits, boxes = draw_digits(rng, number, side, held_out=split == "held-out")
    regions = tuple(Region(*box, None, digit) for box, digit in zip(boxes, digits, strict=True))
    if number == 1:
        regions = (Region(0, 0, side, side, None, digits),)
        return image(pixels, regions), [Asked("handwriting", rng.choice(_DIGIT), digits, ((0, 0),), spelled=True)]
    asked = Asked("handwritten number", rng.choice(_DIGITS), digits, _each((digits,)), spelled=True)
    return image(pixels, regions), [asked]
