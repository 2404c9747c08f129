"""Schemas of real programs: none is refused; what is written to those that lose nothing is valid for the original."""

import json
import random
import re
from typing import Any

import jsonschema
import pytest

from server.core.errors import BadRequestError
from server.structured_output.json_schema import enforceable
from server.structured_output.strings import EMAIL, OLD_EMAIL
from tests.support.grammars import Writer
from tests.support.real_schemas import REAL

RELAXED = {
    "pydantic http url": "maxLength",
    "pydantic set": "uniqueItems",
    "pydantic frozen": "uniqueItems",
    "pydantic by choice": "propertyNames",
    "zod halves": "multipleOf",
    "zod hostname": "pattern",
}
"""Beginnings of names, and what is left out of these."""
CHECKED = jsonschema.FormatChecker(formats=("email", "ipv4", "ipv6", "uuid"))


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer()


def expected(name: str) -> str | None:
    return next((keyword for beginning, keyword in RELAXED.items() if name.startswith(beginning)), None)


def test_there_are_many() -> None:
    assert len(REAL) >= 150 and sum(expected(name) is None for name in REAL) >= 140


@pytest.mark.parametrize("name", REAL)
def test_what_is_written_is_valid_for_the_original(writer: Writer, name: str) -> None:
    schema, relaxed = REAL[name], list[str]()
    rebuilt = enforceable(schema, "s", relaxed)
    assert {path.rpartition(".")[2] for path in relaxed} == ({keyword} if (keyword := expected(name)) else set())
    validator = jsonschema.Draft202012Validator(schema, format_checker=CHECKED)
    for text in writer.answers(rebuilt, seed=len(name), count=2):
        if not relaxed:
            validator.validate(json.loads(text))


@pytest.mark.parametrize("name", [name for name in REAL if expected(name) is not None])
def test_strict_refuses_what_loses_something(name: str) -> None:
    with pytest.raises(BadRequestError):
        enforceable(REAL[name], "s")


@pytest.mark.parametrize(
    "name",
    (
        "email",
        "older email",
        "uuid",
        "uuid v4",
        "guid",
        "date",
        "datetime",
        "datetime offset",
        "ipv6",
        "base64",
        "record",
    ),
)
def test_zods_formats_are_enforced_strictly(name: str) -> None:
    assert enforceable(REAL[f"zod {name}"], "s")


def test_zods_email_is_the_same_without_looking_ahead() -> None:
    choose, signs = random.Random(5), "a.'+@B0-_ "
    texts = ["".join(choose.choices(signs, k=choose.randrange(1, 14))) for _ in range(60_000)]
    texts += [f"{text[:5]}@x.{text[5:]}co" for text in texts] + ["a.b@c.de", ".a@c.de", "a..b@c.de", "a'@c.de"]
    found = [(bool(re.fullmatch(OLD_EMAIL, text)), bool(re.fullmatch(EMAIL, text))) for text in texts]
    assert all(one == other for one, other in found) and sum(one for one, _ in found) > 500


REFUSED: list[dict[str, Any]] = [
    {"type": "integer", "multipleOf": 0},
    {"type": "integer", "multipleOf": True},
    {"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 6},
    {"type": "string", "format": 5},
    {"allOf": [{"type": "object", "properties": {"a": {}}, "additionalProperties": False}, {"properties": {"b": {}}}]},
    {
        "$defs": {name: {"type": "object", "properties": {"n": {"$ref": f"#/$defs/{name}"}}} for name in "AB"},
        "allOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}],
    },
    {
        "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)} | {"d40": {}},
        "$ref": "#/$defs/d0",
    },
]


@pytest.mark.parametrize("schema", REFUSED)
def test_what_contradicts_itself_or_explodes_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        enforceable(schema, "s", [])


@pytest.mark.parametrize(
    "pattern",
    [
        "^a(bc+)?$",
        "^a(b(c+))?d$",
        "^(bc+)?a$",
        r"^a(c+)?(de{1,3})?$",
        r"^[0-5](:[0-5](\.[0-5]+)?)?$",
        "^a[(?]?b$",
        r"^a(b\)?)?$",
    ],
)
def test_optional_groups_are_left_out_whole(writer: Writer, pattern: str) -> None:
    rebuilt = enforceable({"type": "string", "pattern": pattern}, "s")
    for text in writer.answers(rebuilt, seed=1, count=60):
        assert re.fullmatch(pattern, json.loads(text)), text
