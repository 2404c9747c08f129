"""Numbers of a JSON Schema: their bounds, and multiples as the grammar engine can enforce them. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

MAX_MULTIPLES = 1024
"""Multiples that are listed one by one."""
_MAX_FACTOR = 1024
"""The largest `multipleOf` the engine enforces where there are no bounds."""


def multiples(name: str, asserted: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema of a number's multiples within its bounds; None where the engine cannot enforce it.

    Without bounds the engine counts digits, for whole numbers; with a bound at both ends the multiples are listed.

    Args:
        name: `integer` or `number`.
        asserted: the schema; its bounds are numbers, its `multipleOf` is above 0.

    Raises:
        ValueError: no multiple is within the bounds.
    """
    factor = Decimal(str(asserted["multipleOf"]))
    if name == "integer" and factor != int(factor):
        # A whole multiple of a fraction: of 0.5 every whole number, of 1.5 every third one.
        factor = Decimal(factor.as_integer_ratio()[0])
    lows, highs = _bounds(asserted, "minimum"), _bounds(asserted, "maximum")
    low, high = max(lows, default=None), min(highs, default=None)
    if low is None and high is None:
        whole = factor == int(factor) and factor <= _MAX_FACTOR
        return {"type": "integer", "multipleOf": int(factor)} if whole else None
    if low is None or high is None:
        return None
    first = int((low / factor).to_integral_value("ROUND_CEILING"))
    last = int((high / factor).to_integral_value("ROUND_FLOOR"))
    if last - first >= MAX_MULTIPLES:
        return None
    found = [factor * number for number in range(first, last + 1)]
    found = [one for one in found if _is_within(one, asserted)]
    if not found:
        raise ValueError("no multiple is within the bounds")
    return {"enum": [int(one) if one == int(one) else float(one) for one in found]}


def _bounds(asserted: Mapping[str, Any], side: str) -> list[Decimal]:
    names = (side, f"exclusive{side.capitalize()}")
    return [Decimal(str(asserted[name])) for name in names if name in asserted]


def _is_within(value: Decimal, asserted: Mapping[str, Any]) -> bool:
    return not (
        ("exclusiveMinimum" in asserted and value <= Decimal(str(asserted["exclusiveMinimum"])))
        or ("exclusiveMaximum" in asserted and value >= Decimal(str(asserted["exclusiveMaximum"])))
    )
