"""What a regular expression may hold for the grammar engine to mean by it what its author did. Pure.

The engine matches whole texts, so the anchors at both ends say nothing new. It drops others, and look-arounds, without
a word, and inside of a JSON string it writes characters as they are, so that a quote would end the string.
Source: xgrammar 0.2.8, by trying.
"""

import re

from server.core.errors import BadRequestError

_TOKEN = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)|\(\?(?:<[=!]|P<\w+>|<\w+>|.)?|.", re.DOTALL)
_CLASSES = frozenset("dDwWsS")
_CONTROLS = frozenset("nrtfv")
_PLAIN_GROUPS = re.compile(r"\(\?(?::|P?<\w+>)")
_ATOM = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]", re.DOTALL)
"""An escaped character or a character class, in which no character repeats anything."""
_STRUCTURE = re.compile(_PLAIN_GROUPS.pattern + r"|[()]|\{(\d+)(?:,(\d*))?\}|.", re.DOTALL)
MAX_NESTED_REPETITIONS = 256
"""Counts of repetitions inside of each other, multiplied; from some thousands on the grammar engine takes minutes for
one token."""


def require_pattern(pattern: str, param: str, *, in_json: bool) -> None:
    """Refuse what would be ignored or would break the JSON around it.

    Args:
        pattern: the regular expression.
        param: the request field it stands in.
        in_json: whether it describes a JSON string and not the whole answer.

    Raises:
        BadRequestError: it holds such a thing, which the message names.
    """
    in_class = False
    tokens = [match.group() for match in _TOKEN.finditer(pattern)]
    for index, token in enumerate(tokens):
        fault = _fault(token, in_class=in_class)
        if token == "[":
            in_class = True
        elif token == "]":
            in_class = False
        elif not in_class and token == "^" and index > 0:
            fault = "has '^' elsewhere than at its start"
        elif not in_class and token == "$" and index < len(tokens) - 1:
            fault = "has '$' elsewhere than at its end"
        if in_json and fault is None:
            fault = _json_fault(token)
        if fault is not None:
            raise _unsupported(param, fault)
    if nested_repetitions(pattern) > MAX_NESTED_REPETITIONS:
        raise _unsupported(param, f"repeats repetitions more than {MAX_NESTED_REPETITIONS} times in all")


def as_engine_reads(pattern: str) -> str:
    """The same expression in words the engine gets right.

    It lets an optional group that ends with a repetition be left out but for that repetition: `a(bc+)?` takes `ac`. A
    group of `{0,1}` times has no such fault.

    Args:
        pattern: one that `require_pattern` has passed.
    """
    written: list[str] = []
    in_class = False
    for match in _TOKEN.finditer(pattern):
        token = match.group()
        if token == "[":
            in_class = True
        elif token == "]":
            in_class = False
        written.append("{0,1}" if token == "?" and not in_class and written[-1:] == [")"] else token)
    return "".join(written)


def _unsupported(param: str, fault: str) -> BadRequestError:
    return BadRequestError(f"'{param}' {fault}, which is not supported.", param=param, code="unsupported_value")


def nested_repetitions(pattern: str) -> int:
    """The largest product of the counts of repetitions inside of each other; 1 where none is inside of another."""
    largest, last = 1, 1
    groups = [1]
    for match in _STRUCTURE.finditer(_ATOM.sub("a", pattern)):
        if match[1] is not None:
            inner, last = last, last * max(1, int(match[2] or match[1]))
            largest = max(largest, last if inner > 1 else 1)
        elif match[0].startswith("("):
            groups.append(1)
            continue
        elif match[0] == ")":
            last = groups.pop() if len(groups) > 1 else 1
        elif match[0] not in "*+?":
            last = 1
        groups[-1] = max(groups[-1], last)
    return largest


def _fault(token: str, *, in_class: bool) -> str | None:
    if token == "[" and in_class:
        return "has '[' in a character class without a backslash"
    if token == "\x00" or token == "\\":
        return "has a NUL character or ends with a backslash"
    if token.startswith("\\"):
        known = len(token) > 2 or token[1] in _CLASSES | _CONTROLS or (token[1].isascii() and not token[1].isalnum())
        return None if known else f"has '{token}'"
    if token.startswith("(?") and not in_class and not _PLAIN_GROUPS.fullmatch(token):
        return f"has a group of the kind '{token}'"
    return None


def _json_fault(token: str) -> str | None:
    if token in ('"', '\\"', "\\\\"):
        return "has a quote or a backslash as a character"
    if (len(token) > 2 and token.startswith("\\")) or (token[1:] in _CONTROLS and token.startswith("\\")):
        return f"has '{token}' in a JSON string"
    if ord(token[0]) < 0x20:
        return "has a control character"
    return None
