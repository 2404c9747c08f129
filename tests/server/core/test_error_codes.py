"""The table of error codes: has every code that is raised, with the status of the class that raises it."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from server.core import errors
from server.core.error_codes import CODES
from server.media.errors import MediaErrorCode
from tools.error_docs import DOCUMENT, with_table

SERVER = Path(__file__).parents[3] / "server"


def raised() -> Iterator[tuple[str, str]]:
    """Class and code of every error that is made with a literal code."""
    for path in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                for keyword in node.keywords:
                    if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                        yield node.func.id, str(keyword.value.value)


def test_every_raised_code_is_in_the_table_with_its_status() -> None:
    codes = {(code, name) for name, code in raised()}
    assert {"model_not_found", "invalid_json", "file_quota_exceeded"} <= {code for code, _ in codes}
    for code, name in codes:
        assert CODES[code][0] == getattr(errors, name).status, f"{name} {code}"


def test_every_default_code_is_in_the_table() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.ApiError)]
    defaults = {each.default_code: each.status for each in classes if each.default_code is not None}
    assert defaults == {code: CODES[code][0] for code in defaults}
    assert len(defaults) >= 5


@pytest.mark.parametrize("modality", ["image", "video"])
@pytest.mark.parametrize("code", get_args(MediaErrorCode))
def test_every_code_of_media_is_in_the_table(code: str, modality: str) -> None:
    if (code, modality) not in {
        ("media_too_long", "image"),
        ("invalid_media_frames", "image"),
        ("unsupported_media_codec", "image"),
    }:
        assert code.replace("media", modality) in CODES


def test_the_document_has_the_table() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert with_table(text) == text, "run `python -m tools.error_docs --write`"
    with pytest.raises(ValueError):
        with_table("no markers")
