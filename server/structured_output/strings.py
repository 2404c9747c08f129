"""Strings of a JSON Schema brought to the one rule the grammar engine enforces for each: a pattern or a format. Pure.

Where a schema has several rules, one is looked for that says the same: a repetition takes bounds of length in, a
format's own lengths satisfy some, and patterns that libraries write next to a format are known.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from server.structured_output.regex import as_engine_reads

FORMAT_LENGTHS: dict[str, tuple[int, int | None]] = {
    "date": (10, 10),
    "date-time": (20, None),
    "duration": (3, None),
    "email": (3, None),
    "hostname": (1, None),
    "ipv4": (7, 15),
    "ipv6": (2, 45),
    "time": (9, None),
    "uri": (2, None),
    "uuid": (36, 36),
}
"""The formats that are enforced, each with the lengths its strings have at least and at most."""
# No quote, backslash, control character or surrogate; ranges end where UTF-8 changes its length.
PLAIN = r"[ !#-\[\]-~\u00a0-\u07ff\u0800-\ud7ff\ue000-\uffff]"

_REPEATED = re.compile(r"\^?((?:\[(?:\\.|[^\]\\])+\])|\\[dw]|[a-zA-Z0-9])(\+|\*|\{(\d+)(?:,(\d*))?\})\$?", re.DOTALL)
"""A pattern that is one character repeated."""

# What zod writes for its formats, groups that capture or not alike.
# Source: colinhacks/zod, packages/zod/src/v4/core/regexes.ts, and earlier versions of it.
_LEAP_DAY = r"(\d\d[2468][048]|\d\d[13579][26]|\d\d0[48]|[02468][048]00|[13579][26]00)-02-29"
_MONTHS = r"(0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|(02)-(0[1-9]|1\d|2[0-8])"
_DATE = rf"({_LEAP_DAY}|\d{{4}}-({_MONTHS}))"
_MINUTES = r"([01]\d|2[0-3]):[0-5]\d"
_HEX = "[0-9a-fA-F]"
_UUID = rf"{_HEX}{{8}}-{_HEX}{{4}}-%s{_HEX}{{3}}-[89abAB]{_HEX}{{3}}-{_HEX}{{12}}"
_NIL = "|00000000-0000-0000-0000-000000000000"
_MAX = "|ffffffff-ffff-ffff-ffff-ffffffffffff"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9][0-9]|[0-9])"
_IPV4 = rf"({_OCTET}\.){{3}}{_OCTET}"
_IPV6 = (
    "(([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|([0-9a-fA-F]{1,4}:){1,7}:|([0-9a-fA-F]{1,4}:){1,6}:[0-9a-fA-F]{1,4}"
    "|([0-9a-fA-F]{1,4}:){1,5}(:[0-9a-fA-F]{1,4}){1,2}|([0-9a-fA-F]{1,4}:){1,4}(:[0-9a-fA-F]{1,4}){1,3}"
    "|([0-9a-fA-F]{1,4}:){1,3}(:[0-9a-fA-F]{1,4}){1,4}|([0-9a-fA-F]{1,4}:){1,2}(:[0-9a-fA-F]{1,4}){1,5}"
    "|[0-9a-fA-F]{1,4}:((:[0-9a-fA-F]{1,4}){1,6})|:((:[0-9a-fA-F]{1,4}){1,7}|:))"
)
OLD_EMAIL = r"(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}"
EMAIL = r"([A-Za-z0-9_'+\-]+\.)*[A-Za-z0-9_'+\-]*[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}"
_DURATION = r"P((\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)"
_BASE64 = "([0-9a-zA-Z+/]{4})*(([0-9a-zA-Z+/]{2}==)|([0-9a-zA-Z+/]{3}=))?"


def _known_pairs() -> dict[tuple[str | None, str], str | None]:
    pairs: dict[tuple[str | None, str], str | None] = {
        ("email", OLD_EMAIL): EMAIL,
        ("duration", _DURATION): None,
        (None, f"$|^{_BASE64}"): _BASE64,  # the latter takes the empty text, too
    }
    ends = ("(Z)", rf"(Z|([+-]{_MINUTES}))")
    seconds = (r":[0-5]\d(\.\d+)?", r":[0-5]\d", *(rf":[0-5]\d\.\d{{{digits}}}" for digits in range(1, 10)))
    implied = [
        ("email", EMAIL),
        ("ipv4", _IPV4),
        ("ipv6", _IPV6),
        ("date", _DATE),
        *(("uuid", f"({_UUID % version})") for version in range(1, 9)),
        *(("uuid", f"({_UUID % '[1-8]'}{end})") for end in (_NIL, _NIL + _MAX)),
        ("uuid", f"({_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}})"),
        *(("date-time", f"{_DATE}T({_MINUTES}{second}{end})") for second in seconds for end in ends),
    ]
    for end in ends:  # a format has seconds
        enforced = rf"{_DATE}T({_MINUTES}:[0-5]\d(\.\d+)?{end})"
        pairs["date-time", rf"{_DATE}T({_MINUTES}(:[0-5]\d(\.\d+)?)?{end})"] = enforced
    return {**pairs, **{pair: pair[1] for pair in implied}}


_KNOWN_PAIRS = _known_pairs()
"""The pattern that is enforced for a format, if any, and a pattern together; None: the format, which implies it."""


@dataclass(slots=True)
class StringRule:
    """What is enforced for a string."""

    pattern: str | None = None
    format: str | None = None
    left: list[str] = field(default_factory=list)
    """Keywords that it leaves out."""

    def schema(self) -> dict[str, str]:
        """The rule as a schema."""
        pattern = None if self.pattern is None else as_engine_reads(self.pattern)
        rule = {"pattern": pattern, "format": self.format}
        return {"type": "string", **{name: value for name, value in rule.items() if value is not None}}


def one_rule(asserted: Mapping[str, Any], lengths: Mapping[str, int], *, enforces_pattern: bool) -> StringRule:
    """The rule that says the most of a string's keywords.

    Args:
        asserted: the schema, whose pattern and format are strings.
        lengths: its `minLength` and `maxLength`.
        enforces_pattern: whether the engine can enforce its pattern.
    """
    pattern: str | None = asserted.get("pattern")
    format_ = asserted.get("format")
    format_ = format_ if format_ in FORMAT_LENGTHS else None  # any other is an annotation
    if pattern is not None:
        known = (format_, _bare(pattern))
        if known in _KNOWN_PAIRS:
            pattern, enforces_pattern = _KNOWN_PAIRS[known], True
            format_ = None if pattern is not None else format_
    if pattern is not None and not enforces_pattern:
        rule = _of_format_or_lengths(format_, lengths)
        rule.left.insert(0, "pattern")
        return rule
    if pattern is None:
        return _of_format_or_lengths(format_, lengths)
    left = [] if format_ is None else ["format"]
    if lengths and (bounded := _bounded(pattern, lengths)) is not None:
        return StringRule(pattern=bounded, left=left)
    return StringRule(pattern=pattern, left=[*left, *lengths])


def _of_format_or_lengths(format_: str | None, lengths: Mapping[str, int]) -> StringRule:
    if format_ == "ipv4":  # to the engine, numbers may begin with zeros
        return StringRule(pattern=f"^{_IPV4}$", left=_unsatisfied(format_, lengths))
    if format_ is not None:
        return StringRule(format=format_, left=_unsatisfied(format_, lengths))
    if not lengths:
        return StringRule()
    return StringRule(pattern=f"^{PLAIN}{{{lengths.get('minLength', 0)},{lengths.get('maxLength', '')}}}$")


def _unsatisfied(format_: str, lengths: Mapping[str, int]) -> list[str]:
    """The bounds of length that a format's strings need not keep to."""
    least, most = FORMAT_LENGTHS[format_]
    return [
        name
        for name, value in lengths.items()
        if not (value <= least if name == "minLength" else most is not None and value >= most)
    ]


def _bounded(pattern: str, lengths: Mapping[str, int]) -> str | None:
    """A pattern of one repeated character with bounds of length; None where it is another, or none fits both."""
    repeated = _REPEATED.fullmatch(pattern)
    if repeated is None or not (pattern.startswith("^") and pattern.endswith("$")):
        return None
    atom, times, low, high = repeated.groups()
    least, most = {"+": (1, None), "*": (0, None)}.get(times, (int(low or 0), None))
    if low is not None:
        most = int(low) if "," not in times else int(high) if high else None
    least = max(least, lengths.get("minLength", 0))
    limits = [limit for limit in (most, lengths.get("maxLength")) if limit is not None]
    if limits and least > min(limits):
        return None
    return f"^{atom}{{{least},{min(limits) if limits else ''}}}$"


def _bare(pattern: str) -> str:
    """A pattern without anchors at its ends, and with groups that capture."""
    return pattern.removeprefix("^").removesuffix("$").replace("(?:", "(")
