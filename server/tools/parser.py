"""Parses a model's text while it streams: plain text, the names of called functions, their arguments. Pure.

What only looks like a call is text. Arguments are passed on as they are written; that they are valid is the grammar's
business (`server/tools/grammar.py`), not this module's. White space between text and a call belongs to the
format.

Twin: `server/tools/hermes.py` writes the same format.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from server.tools.hermes import CALL_END, CALL_START

_SPACE = " \t\r\n"
_GAP = f"[{_SPACE}]{{0,8}}"


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Text outside of calls."""

    text: str


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A call begins."""

    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsPiece:
    """More of the arguments of the last call, as JSON text."""

    text: str


Piece = TextPiece | CallPiece | ArgumentsPiece


def _beginnings(atoms: Iterable[str]) -> re.Pattern[str]:
    """Matches every beginning of what `atoms`, patterns of single characters or of runs, match one after another."""
    pattern = ""
    for atom in reversed(list(atoms)):
        pattern = f"(?:{atom}{pattern})?"
    return re.compile(pattern, re.ASCII)


_NAME = r"[\w-]{0,130}"
"""The name of a function: up to 64 characters, and as many of its namespace."""
_HEAD = (_GAP, r"\{", _GAP, *'"name"', _GAP, ":", _GAP, '"', _NAME, '"', _GAP, ",", _GAP, *'"arguments"', _GAP)
_BEFORE_ARGUMENTS = (*_HEAD, ":", _GAP)
_BEGINS_HEAD = _beginnings(_BEFORE_ARGUMENTS)
_WHOLE_HEAD = re.compile("".join(_BEFORE_ARGUMENTS).replace(_NAME, r"([\w-]{1,130})") + r"(?=\{)", re.ASCII)
_TAIL = (_GAP, r"\}", _GAP, *CALL_END)
_BEGINS_TAIL = _beginnings(_TAIL)
_WHOLE_TAIL = re.compile("".join(_TAIL))


class ToolCallParser:
    """Reads one answer."""

    def __init__(self) -> None:
        self.is_cut = False
        """Whether the answer ended within a call's arguments; known after `end`."""
        self._read = self._read_text
        self._waiting = ""
        self._lead = ""
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._after_call = False

    def feed(self, text: str) -> list[Piece]:
        """What is certain once `text` has come."""
        self._waiting += text
        pieces: list[Piece] = []
        while self._read(pieces):
            pass
        return _joined(pieces)

    def end(self) -> list[Piece]:
        """What is left when nothing more comes."""
        pieces: list[Piece] = []
        if self._read == self._read_arguments:
            self.is_cut = True
        elif self._read == self._read_head:
            pieces.append(TextPiece(self._lead + self._waiting))
        elif self._read == self._read_text and not (self._after_call and not self._waiting.strip(_SPACE)):
            pieces.append(TextPiece(self._waiting))
        self._waiting = ""
        return _joined(pieces)

    # Each of these takes what it can from the waiting text and says whether there is more to do.

    def _read_text(self, pieces: list[Piece]) -> bool:
        text, start, rest = self._waiting.partition(CALL_START)
        kept = text.rstrip(_SPACE) if start else text[: _certain(text)]
        if kept:
            pieces.append(TextPiece(kept))
            self._after_call = False
        if not start:
            self._waiting = text[len(kept) :]
            return False
        self._lead = text[len(kept) :] + start
        self._waiting = rest
        self._read = self._read_head
        return True

    def _read_head(self, pieces: list[Piece]) -> bool:
        if head := _WHOLE_HEAD.match(self._waiting):
            pieces.append(CallPiece(head[1]))
            self._waiting = self._waiting[head.end() :]
            self._read = self._read_arguments
            return True
        if _BEGINS_HEAD.fullmatch(self._waiting):
            return False
        pieces.append(TextPiece(self._lead))
        self._after_call = False
        self._read = self._read_text
        return True

    def _read_arguments(self, pieces: list[Piece]) -> bool:
        end = self._object_end()
        if self._waiting[:end]:
            pieces.append(ArgumentsPiece(self._waiting[:end]))
        self._waiting = self._waiting[end:]
        if self._depth:
            return False
        self._read = self._read_tail
        return True

    def _object_end(self) -> int:
        """Index behind the object that is being read, or behind all that waits."""
        for index, character in enumerate(self._waiting):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = character == "\\"
                self._in_string = character != '"'
            elif character == '"':
                self._in_string = True
            elif character in "{}":
                self._depth += 1 if character == "{" else -1
                if not self._depth:
                    return index + 1
        return len(self._waiting)

    def _read_tail(self, pieces: list[Piece]) -> bool:
        if tail := _WHOLE_TAIL.match(self._waiting):
            self._waiting = self._waiting[tail.end() :]
        elif _BEGINS_TAIL.fullmatch(self._waiting):
            return False
        self._after_call = True
        self._read = self._read_text
        return True


def _certain(text: str) -> int:
    """How much of `text` a call cannot change: all but white space and the beginning of a call at its end."""
    start = next((length for length in range(len(CALL_START) - 1, 0, -1) if text.endswith(CALL_START[:length])), 0)
    return len(text[: len(text) - start].rstrip(_SPACE))


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbors of a kind as one, nothing empty."""
    joined: list[Piece] = []
    for one in pieces:
        match (joined[-1] if joined else None), one:
            case TextPiece(before), TextPiece(text):
                joined[-1] = TextPiece(before + text)
            case ArgumentsPiece(before), ArgumentsPiece(text):
                joined[-1] = ArgumentsPiece(before + text)
            case _, (TextPiece("") | ArgumentsPiece("")):
                pass
            case _:
                joined.append(one)
    return joined
