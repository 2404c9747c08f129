"""The text of a grounding answer for people: without the tokens around boxes, and without their corners."""

import re

_LEFT_OUT = re.compile(
    r"<\|box_start\|>.*?<\|box_end\|>|<\|(?:object_ref_start|object_ref_end|box_end|quad_start|quad_end)\|>"
    r"|<box>.*?</box>|</?(?:ref|quad)>|</box>",
    re.DOTALL,
)
_UNFINISHED = re.compile(
    r"<\|box_start\|>(?:(?!<\|box_end\|>).)*$|<box>(?:(?!</box>).)*$|<(?:\|[a-z_]*\|?|/?[a-z]{0,4})?$", re.DOTALL
)


class GroundedText:
    """Takes control tokens and boxes out of a text that comes in pieces."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be shown once `piece` has come; what may become a token or a box is held back."""
        self._held = _LEFT_OUT.sub("", self._held + piece)
        unfinished = _UNFINISHED.search(self._held)
        end = unfinished.start() if unfinished else len(self._held)
        shown, self._held = self._held[:end], self._held[end:]
        return shown

    def rest(self) -> str:
        """What was held back and became neither; half a box is nothing."""
        return re.sub(r"(?:<\|box_start\|>|<box>)[\d(),\s]*", "", self._held)


def may_have_boxes(answer: str) -> bool:
    """Whether a model has written boxes, not only numbers in brackets."""
    return any(mark in answer for mark in ("<|box_start|>", "<box>", '"bbox_2d"'))


def without_tokens(answer: str) -> str:
    """The text as a client gets it that asks for no special tokens: what is sent back in the next turn."""
    return re.sub(r"<\|(?:object_ref|box|quad)_(?:start|end)\|>", "", answer)
