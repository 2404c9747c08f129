"""Whether an answer is right.

Most answers have to be exactly right. A box counts when it overlaps the true one by half (intersection over union), a
count or a comparison by its verdict alone, since what is listed before it is the way there; and where a thing lies
near a border, or its size near the one between small and large, either word counts (`Asked.phrases`).
"""

import re

from training.sample import Asked, Phrases

_BOX = re.compile(r"\((\d+),(\d+)\),\((\d+),(\d+)\)")
_BY_VERDICT = ("count", "comparison", "count, Chinese")
_LEAST_OVERLAP = 0.5


def is_right(asked: Asked, text: str) -> bool:
    """Whether a reply answers the question."""
    if asked.task == "grounding":
        given, true = _BOX.search(text), _BOX.search(asked.answer)
        return given is not None and true is not None and overlap(_corners(given), _corners(true)) >= _LEAST_OVERLAP
    if asked.task in _BY_VERDICT:
        return verdict(text) == verdict(asked.answer)
    if asked.phrases:
        return _says(_phrases(text, single=len(asked.phrases) == 1), asked.phrases)
    return text.strip() == asked.answer


def verdict(text: str) -> str:
    """What stands after the last colon."""
    return re.split(r": |：", text.strip())[-1]


def _phrases(text: str, *, single: bool) -> list[str]:
    bare = text.strip().rstrip(".。").lower()
    return [bare] if single else re.split(r", |，", bare)


def _says(said: list[str], wanted: Phrases) -> bool:
    """Whether each phrase that is wanted is said once, in any order, and nothing else."""
    if len(said) != len(wanted):
        return False
    if not said:
        return True
    for index, phrase in enumerate(said):
        if phrase in (right.lower() for right in wanted[0]) and _says(said[:index] + said[index + 1 :], wanted[1:]):
            return True
    return False


def _corners(match: re.Match[str]) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = (int(value) for value in match.groups())
    return x1, y1, x2, y2


def overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2); 0..1."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0, width) * max(0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return shared / (areas - shared) if areas > shared else 0.0
