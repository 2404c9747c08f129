"""Multipart forms as real clients write them, cut anywhere."""

import contextlib

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from server.core.errors import BadRequestError
from server.files.multipart import MAX_FIELD_BYTES, MAX_PARTS, UploadForm

KIND = "multipart/form-data; boundary=x"


def posted(content: bytes, filename: str, **fields: str) -> tuple[Headers, bytes]:
    """A form as httpx writes it."""
    request = httpx.Request("POST", "http://x", data=fields, files={"file": (filename, content)})
    return Headers({"content-type": request.headers["content-type"]}), request.read()


def form(*parts: str, kind: str = KIND, end: str = "--x--\r\n") -> tuple[Headers, bytes]:
    """A form written by hand; a part is its disposition's rest, a bar, its value."""
    text = ""
    for part in parts:
        head, _, value = part.partition("|")
        text += f"--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n"
    return Headers({"content-type": kind}), (text + end).encode()


def read(headers: Headers, body: bytes, step: int = 1 << 20) -> tuple[dict[str, object], bytes, str | None]:
    reader = UploadForm(headers)
    content = b""
    for start in range(0, len(body), step):
        content += b"".join(reader.feed(body[start : start + step]))
    return reader.close(), content, reader.filename


@given(
    st.binary(max_size=300) | st.sampled_from([b"\r\n--x\r\n", b"\r\n--", b"--x--"]),
    st.integers(1, 80),
    st.text("abc é.", min_size=1, max_size=20),
)
@settings(deadline=None)
def test_what_clients_write_is_read_back_however_it_is_cut(content: bytes, step: int, filename: str) -> None:
    headers, body = posted(content, filename, **{"purpose": "vision", "expires_after[seconds]": "3600"})
    assert read(headers, body, step) == (
        {"purpose": "vision", "expires_after": {"seconds": "3600"}},
        content,
        filename,
    )


def test_fields_may_stand_after_the_file() -> None:
    assert read(*form('name="file"; filename="a.png"|xyz', 'name="purpose"|vision')) == (
        {"purpose": "vision"},
        b"xyz",
        "a.png",
    )


FILE = 'name="file"; filename="a"|x'


@pytest.mark.parametrize(
    ("parts", "param", "code"),
    [
        ((), "file", "missing_required_parameter"),
        (('name="purpose"|vision',), "file", "missing_required_parameter"),
        ((FILE, FILE), "file", "invalid_value"),
        ((FILE, 'name="a"|1', 'name="a"|2'), "a", "invalid_value"),
        ((FILE, 'name="a"|1', 'name="a[b]"|2'), "a", "invalid_value"),
        ((FILE, 'name="a[b]"|1', 'name="a"|2'), "a", "invalid_value"),
        (('name="file"|x',), "file", "invalid_type"),
        (('name="file"; filename=""|x',), "file", "invalid_type"),
        ((FILE, 'name="mask"; filename="b"|x'), "mask", "unknown_parameter"),
        ((FILE, f'name="a"|{"y" * (MAX_FIELD_BYTES + 1)}'), "a", "string_above_max_length"),
        ((f'name="file"; filename="{"y" * 256}"|x',), "file", "string_above_max_length"),
        ((FILE, *(f'name="f{n}"|' for n in range(MAX_PARTS))), None, "invalid_form"),
        ((FILE, 'filename="b"|x'), None, "invalid_form"),
    ],
)
def test_wrong_forms_are_refused_by_name(parts: tuple[str, ...], param: str | None, code: str | None) -> None:
    with pytest.raises(BadRequestError) as caught:
        read(*form(*parts))
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize("cut", [3, 10, 40, 70])
def test_a_form_that_ends_early_is_refused(cut: int) -> None:
    headers, body = form(FILE, 'name="purpose"|vision')
    with pytest.raises(BadRequestError, match="complete"):
        read(headers, body[:-cut])


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "invalid_content_type"),
        ({"content-type": "application/json"}, "invalid_content_type"),
        ({"content-type": "multipart/form-data"}, "invalid_content_type"),
        ({"content-type": "multipart/mixed; boundary=x"}, "invalid_content_type"),
        ({"content-type": "multipart/form-data; boundary=" + "x" * 300}, "invalid_form"),
        ({"content-type": KIND, "content-encoding": "gzip"}, "invalid_content_encoding"),
    ],
)
def test_other_content_types_are_refused(headers: dict[str, str], code: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        UploadForm(Headers(headers))
    assert caught.value.code == code


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_no_body_makes_it_fail_otherwise(body: bytes) -> None:
    for data in (body, b"--x\r\n" + body, b"--x\r\nContent-Disposition: form-data; name=" + body):
        with contextlib.suppress(BadRequestError):
            read(Headers({"content-type": KIND}), data)


@pytest.mark.parametrize("end", ["--x--", "--x--\r", "--x--\r\n", "--x--\r\n\r\n"])
def test_the_last_line_may_lack_its_break(end: str) -> None:
    assert read(*form(FILE, end=end))[1] == b"x"
