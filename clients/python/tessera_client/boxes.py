"""Grounding answers to boxes in pixels. Pure."""

import re
from dataclasses import dataclass

EXTENT = 1000
"""Coordinates in answers run from 0 to this, whatever the image's size."""

_CORNER = r"\(\s*(\d{1,4})\s*,\s*(\d{1,4})\s*\)"
_PIECE = re.compile(
    rf"<\|object_ref_start\|>(?P<name>.*?)<\|object_ref_end\|>|(?:<\|box_start\|>)?{_CORNER}\s*,\s*{_CORNER}", re.DOTALL
)
_CONTROL = re.compile(r"<\|[a-z_]+\|>")


@dataclass(frozen=True, slots=True)
class Box:
    """A region of an image, in pixels from its top left; left is at most right, top at most bottom."""

    label: str
    left: float
    top: float
    right: float
    bottom: float


def boxes(answer: str, *, width: int, height: int) -> list[Box]:
    """The boxes of an answer, in order.

    Both forms are read: with control tokens (`skip_special_tokens: false`), and as text from which they were removed,
    `the red circle(120,80),(430,410)`; there, a label is what stands before its box on the same line. A label holds for
    all boxes up to the next one.

    Args:
        answer: the model's text.
        width: of the image as it was sent (upright, where EXIF turns it), in pixels.
        height: likewise.

    Source: Qwen2-VL report (arXiv 2409.12191) section 2.3: corners relative in [0, 1000).
    """
    found: list[Box] = []
    label, end = "", 0
    for match in _PIECE.finditer(answer):
        if match["name"] is not None:
            label = match["name"].strip()
        else:
            between = _CONTROL.sub("", answer[end : match.start()]).rpartition("\n")[2].strip(" \t.,;:")
            label = between or label
            found.append(_box(label, [int(number) for number in match.groups()[1:]], width, height))
        end = match.end()
    return found


def _box(label: str, corners: list[int], width: int, height: int) -> Box:
    x1, y1, x2, y2 = (min(number, EXTENT) for number in corners)
    left, right = sorted((x1 * width / EXTENT, x2 * width / EXTENT))
    top, bottom = sorted((y1 * height / EXTENT, y2 * height / EXTENT))
    return Box(label, left, top, right, bottom)
