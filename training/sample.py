"""What the model learns from: media, and exchanges about them. Plain values; twin of one chat request each.

A sample's exchanges share their media, so an image is drawn and encoded once for many questions; each exchange is
nevertheless seen by the model as a conversation of its own (`training/batch.py`).
"""

from dataclasses import dataclass

from model_executor.engine import Modality
from model_executor.processor.chatml import Message
from model_executor.processor.tokenizer import MediaPlaceholder
from training.backgrounds import Split as Split
from training.drawing import Pixels
from training.recipe import SizeMix as SizeMix

Target = tuple[int, int]
"""Index of a media item of the sample, and of one of its regions."""
Phrases = tuple[tuple[str, ...], ...]
"""What each phrase of an answer may say."""


@dataclass(frozen=True, slots=True)
class Region:
    """Where something is in an image or in one temporal slice of a video, in source pixels, and what it is."""

    left: float
    top: float
    right: float
    bottom: float
    color: str | None
    """One of `world.COLORS`; None where the color is not told."""
    symbol: str
    """One of `world.SHAPES`, a letter or a digit."""
    slice: int = 0
    """Of a video: which two frames it is told of."""


@dataclass(frozen=True, slots=True)
class Media:
    """An image (one frame) or a video (frames half a second apart): uint8 [H, W, 3] each, at source size."""

    modality: Modality
    frames: tuple[Pixels, ...]
    regions: tuple[Region, ...] | None = None
    """What is where, for the warm-up of the vision tower; None where nobody says. Later ones lie over earlier ones."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and its answer before they are put in a conversation."""

    task: str
    question: str
    answer: str
    """May hold grounding tokens; the end token is added when it is encoded."""
    targets: tuple[Target, ...] = ()
    """What the answer is about, in its order: one thing for all of it, one for each phrase between commas, or one for
    each character. Empty where nobody says."""
    phrases: Phrases = ()
    """What is right too, where a thing lies near a border or has more than one name; empty where only the answer is."""
    spelled: bool = False
    """Whether the answer is read character by character: each is then a token of its own."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One conversation up to the answer, and the answer to learn."""

    messages: tuple[Message, ...]
    asked: Asked

    @property
    def task(self) -> str:
        """What kind of question it is."""
        return self.asked.task

    @property
    def answer(self) -> str:
        """The answer to learn."""
        return self.asked.answer


@dataclass(frozen=True, slots=True)
class Sample:
    """Media and the exchanges about them; every exchange shows all the media, in order."""

    media: tuple[Media, ...]
    exchanges: tuple[Exchange, ...]


def image(pixels: Pixels, regions: tuple[Region, ...] | None = None) -> Media:
    """A still, and what is where in it."""
    return Media("image", (pixels,), regions)


def converse(
    media: tuple[Media, ...], asked: list[Asked], *, system: str | None, media_first: bool, earlier: int = 0
) -> Sample:
    """A sample with each of `asked` as a user turn that holds the media and the question.

    Args:
        media: shown in every turn.
        asked: questions with answers.
        system: text of a system turn; None for none.
        media_first: whether the media stand before the question.
        earlier: turns before each question, with others of `asked` and their answers; the media stand in the first.
    """
    opening = () if system is None else (Message("system", (system,)),)
    slots = tuple(MediaPlaceholder(index, item.modality) for index, item in enumerate(media))

    def exchange(index: int) -> Exchange:
        item, turns, shown = asked[index], list(opening), slots
        before = [other for other in asked[index + 1 :] + asked[:index] if "<|" not in other.answer]
        for turn in before[:earlier]:
            turns += [Message("user", _turn(turn, shown, media_first)), Message("assistant", (turn.answer,))]
            shown = ()
        turns.append(Message("user", _turn(item, shown, media_first)))
        return Exchange(tuple(turns), item)

    return Sample(media, tuple(exchange(index) for index in range(len(asked))))


def _turn(item: Asked, slots: tuple[MediaPlaceholder, ...], media_first: bool) -> tuple[str | MediaPlaceholder, ...]:
    return (*slots, item.question) if media_first else (item.question, *slots)
