"""What the model learns from: media, and exchanges about them. Plain values; twin of one chat request each.

A sample's exchanges share their media, so a picture is drawn and encoded once for many questions; each exchange is
nevertheless seen by the model as a conversation of its own (`training/batch.py`).
"""

from dataclasses import dataclass
from typing import Literal

from model_executor.engine import Modality
from model_executor.processor.chatml import Message
from model_executor.processor.tokenizer import MediaPlaceholder
from training.drawing import Pixels

SizeMix = tuple[float, float, float, float]
"""Shares of small, medium, large and narrow pictures."""
Split = Literal["training", "held-out"]
Target = tuple[int, int]
"""Index of a medium of the sample, and of one of its regions."""


@dataclass(frozen=True, slots=True)
class Region:
    """Where something is in a picture or in one temporal slice of a clip, in source pixels, and what it is."""

    left: float
    top: float
    right: float
    bottom: float
    color: str | None
    """One of `world.COLORS`; None where the colour is not told."""
    symbol: str
    """One of `world.SHAPES`, a capital or a digit."""
    slice: int = 0
    """Of a clip: which two frames it is told of."""


@dataclass(frozen=True, slots=True)
class Medium:
    """A picture (one frame) or a clip (frames half a second apart): uint8 [H, W, 3] each, at source size."""

    modality: Modality
    frames: tuple[Pixels, ...]
    regions: tuple[Region, ...] | None = None
    """What is where, for the warm-up of the vision tower; None where nobody says."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One conversation up to the answer, and the answer to learn."""

    task: str
    messages: tuple[Message, ...]
    answer: str
    """May hold grounding tokens; the end token is added when it is encoded."""
    targets: tuple[Target, ...] = ()
    """What the answer is about, in its order: one thing for all of it, one for each phrase between commas, or one for
    each token. Empty where nobody says."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Media and the exchanges about them; every exchange shows all the media, in order."""

    media: tuple[Medium, ...]
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and its answer before they are put in a conversation."""

    task: str
    question: str
    answer: str
    targets: tuple[Target, ...] = ()
    """As `Exchange.targets`."""


def picture(pixels: Pixels, regions: tuple[Region, ...] | None = None) -> Medium:
    """A still, and what is where in it."""
    return Medium("image", (pixels,), regions)


def converse(
    media: tuple[Medium, ...], asked: list[Asked], *, system: str | None, media_first: bool, earlier: int = 0
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
    slots = tuple(MediaPlaceholder(index, medium.modality) for index, medium in enumerate(media))

    def exchange(index: int) -> Exchange:
        item, turns, shown = asked[index], list(opening), slots
        before = [other for other in asked[index + 1 :] + asked[:index] if "<|" not in other.answer]
        for turn in before[:earlier]:
            turns += [Message("user", _turn(turn, shown, media_first)), Message("assistant", (turn.answer,))]
            shown = ()
        turns.append(Message("user", _turn(item, shown, media_first)))
        return Exchange(item.task, tuple(turns), item.answer, item.targets)

    return Sample(media, tuple(exchange(index) for index in range(len(asked))))


def _turn(item: Asked, slots: tuple[MediaPlaceholder, ...], media_first: bool) -> tuple[str | MediaPlaceholder, ...]:
    return (*slots, item.question) if media_first else (item.question, *slots)
