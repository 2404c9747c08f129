"""Spellings of `data:` URLs that browsers and base64 libraries write or read."""

import base64
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.media.fetch.data_url import decoded

SPELLINGS: dict[str, Callable[[bytes], str]] = {
    "plain": lambda data: base64.b64encode(data).decode(),
    "MIME line breaks": lambda data: base64.encodebytes(data).decode(),
    "CRLF": lambda data: base64.encodebytes(data).decode().replace("\n", "\r\n"),
    "no padding": lambda data: base64.b64encode(data).decode().rstrip("="),
    "base64url": lambda data: base64.urlsafe_b64encode(data).decode(),
    "base64url without padding": lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    "percent signs": lambda data: quote(base64.b64encode(data).decode(), safe=""),
    "every character escaped": lambda data: "".join(f"%{byte:02x}" for byte in base64.b64encode(data)),
    "blanks": lambda data: " ".join(base64.b64encode(data).decode()) + "\t ",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(data=st.binary(max_size=200), slice_chars=st.integers(1, 50))
def test_every_spelling_is_the_same_data(spelling: str, data: bytes, slice_chars: int) -> None:
    text = SPELLINGS[spelling](data)
    for head in ("data:image/png;base64,", "DATA:;Base64,", "data:image/png; base64 ,"):
        assert b"".join(decoded(head + text, slice_chars=slice_chars)) == data
