"""What values the keywords of a JSON Schema may have, and the errors that say so. Pure."""

from typing import Any

from server.core.errors import BadRequestError

EXACT = 1 << 53
"""From here on a float64 does not hold every whole number."""
_DECIMALS = 6
_MAX_COUNT = 100_000
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_TYPES_OF: tuple[tuple[type, frozenset[str]], ...] = (
    (bool, frozenset(("boolean",))),
    (int, frozenset(("integer", "number"))),
    (float, frozenset(("number",))),
    (str, frozenset(("string",))),
    (list, frozenset(("array",))),
    (dict, frozenset(("object",))),
    (type(None), frozenset(("null",))),
)


def entries(value: Any) -> list[Any]:
    """The schemas in a keyword that holds several."""
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def bounds_of(name: str, asserted: dict[str, Any], path: str) -> dict[str, Any]:
    """The bounds of a number of type `name`.

    Raises:
        BadRequestError: one is no number that is enforced exactly.
    """
    bounds = {keyword: asserted[keyword] for keyword in _BOUNDS if keyword in asserted}
    for keyword, value in bounds.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refused(path, keyword, "must be a number")
        if name == "integer" and value != int(value):
            raise refused(path, keyword, "must be a whole number with the type 'integer'")
        if abs(value) >= EXACT or round(value, _DECIMALS) != value:
            raise refused(path, keyword, f"must be below 2^53 and have at most {_DECIMALS} decimals")
    return bounds


def counts_of(keywords: tuple[str, str], asserted: dict[str, Any], path: str) -> dict[str, int]:
    """The least and the greatest number of something.

    Raises:
        BadRequestError: one is no count, or they contradict each other.
    """
    counts = {keyword: asserted[keyword] for keyword in keywords if keyword in asserted}
    for keyword, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
            raise refused(path, keyword, f"must be an integer from 0 to {_MAX_COUNT}")
    least, most = keywords
    if counts.get(least, 0) > counts.get(most, _MAX_COUNT):
        raise refused(path, least, f"is above '{most}'")
    return counts


def require_values(values: list[Any], types: list[str] | None, path: str) -> None:
    """Refuse values the engine would write differently, and those the type next to them forbids."""
    for value in values:
        kinds = next(kinds for kind, kinds in _TYPES_OF if isinstance(value, kind))
        if types is not None and kinds.isdisjoint(types):
            raise BadRequestError(f"'{path}' has a value that 'type' forbids.", param=path, code="unsupported_value")
        _require_exact(value, path)


def _require_exact(value: Any, path: str) -> None:
    if isinstance(value, int | float) and abs(value) >= EXACT:
        raise BadRequestError(
            f"'{path}' has a number of 2^53 or more, which is not supported.", param=path, code="unsupported_value"
        )
    for inner in entries(value):
        _require_exact(inner, path)


def require_object(value: Any, path: str) -> dict[str, Any]:
    """The value, if it is an object; otherwise raises BadRequestError."""
    if not isinstance(value, dict):
        raise BadRequestError(f"'{path}' must be an object.", param=path[:200], code="invalid_type")
    return value


def require_array(value: Any, path: str) -> list[Any]:
    """The value, if it is an array with entries; otherwise raises BadRequestError."""
    if not isinstance(value, list) or not value:
        raise BadRequestError(f"'{path}' must be an array with entries.", param=path[:200], code="invalid_type")
    return value


def refused(path: str, keyword: str, fact: str) -> BadRequestError:
    """The error that says what is wrong with a keyword."""
    param = f"{path}.{keyword}"[:200]
    return BadRequestError(f"'{param}' {fact}.", param=param, code="unsupported_value")
