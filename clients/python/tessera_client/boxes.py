"""Grounding answers to boxes in pixels. Pure."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

THOUSANDTHS = (1000, 1000)
"""Qwen2-VL's corners count thousandths of the image's sides, whatever their lengths."""

_CORNER = r"\(\s*(\d{1,5})\s*,\s*(\d{1,5})\s*\)"
_PIECE = re.compile(
    rf"(?:<\|object_ref_start\|>|<ref>)(?P<name>.*?)(?:<\|object_ref_end\|>|</ref>)|{_CORNER}\s*,\s*{_CORNER}",
    re.DOTALL,
)
_CONTROL = re.compile(r"<\|[a-z_]+\|>|</?(?:ref|box|quad)>")
_OBJECT = re.compile(r'\{[^{}]*"bbox_2d"[^{}]*\}')


@dataclass(frozen=True, slots=True)
class Box:
    """A region of an image, in pixels from its top left; left is at most right, top at most bottom."""

    label: str
    left: float
    top: float
    right: float
    bottom: float


def boxes(answer: str, *, width: int, height: int, extent: tuple[int, int] = THOUSANDTHS) -> list[Box]:
    """The boxes of an answer, in order.

    These forms are read: with control tokens (`skip_special_tokens: false`); as text from which they were removed,
    `the red circle(120,80),(430,410)`, where a label is what stands before its box on the same line, and holds for all
    boxes up to the next one; and Qwen2.5-VL's JSON, `{"bbox_2d": [120, 80, 430, 410], "label": "the red circle"}`.

    Args:
        answer: the model's text.
        width: of the image as it was sent (upright, where EXIF turns it), in pixels.
        height: likewise.
        extent: (width, height) that corners count to: `box_extent` of the server's media report. Qwen2.5-VL counts the
            pixels of the image as it sees it; Qwen-VL and Qwen2-VL count thousandths.

    Source: Qwen2-VL report (arXiv 2409.12191) section 2.3; Qwen2.5-VL report (arXiv 2502.13923) section 2.2.
    """
    scale = (width / extent[0], height / extent[1])
    written = [_box(label, corners, scale, (width, height)) for label, corners in _written_out(answer)]
    return written or [_box(label, corners, scale, (width, height)) for label, corners in _json(answer)]


def _written_out(answer: str) -> Iterator[tuple[str, list[float]]]:
    """Labels and corners that stand in the text."""
    label, end = "", 0
    for match in _PIECE.finditer(answer):
        if match["name"] is not None:
            label = match["name"].strip()
        else:
            between = _CONTROL.sub("", answer[end : match.start()]).rpartition("\n")[2].strip(" \t.,;:")
            label = between or label
            yield label, [float(number) for number in match.groups()[1:]]
        end = match.end()


def _json(answer: str) -> Iterator[tuple[str, list[float]]]:
    """Labels and corners of JSON objects; those that are incomplete or something else are left out."""
    for match in _OBJECT.finditer(answer):
        try:
            value = json.loads(match[0])
        except ValueError:
            continue
        corners = value["bbox_2d"] if isinstance(value, dict) else None
        if isinstance(corners, list) and len(corners) == 4 and all(isinstance(each, int | float) for each in corners):
            label = value.get("label")
            yield label if isinstance(label, str) else "", [float(each) for each in corners]


def _box(label: str, corners: list[float], scale: tuple[float, float], size: tuple[int, int]) -> Box:
    x1, y1, x2, y2 = (max(0, min(each * scale[i % 2], size[i % 2])) for i, each in enumerate(corners))
    return Box(label, min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
