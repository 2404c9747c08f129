"""Incremental parser of an upload's multipart form, which holds none of the file's bytes. Pure.

Source: RFC 7578 (multipart/form-data); a nested object is written `expires_after[seconds]`, as by the official SDKs.
"""

import re
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers

from server.core.errors import BadRequestError

MAX_FIELD_BYTES = 1024
"""Maximum size of one field other than the file."""
MAX_PARTS = 16
MAX_FILENAME_CHARS = 255

_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_NESTED = re.compile(r"(\w+)\[(\w+)\]")


class UploadForm:
    """The form of one upload.

    Args:
        headers: of the request.

    Raises:
        BadRequestError: they declare anything other than an uncompressed form.
    """

    def __init__(self, headers: Headers) -> None:
        content_type, options = parse_options_header(headers.get("content-type"))
        if content_type != b"multipart/form-data" or not options.get(b"boundary"):
            raise BadRequestError(
                "The content type must be multipart/form-data with a boundary.", code="invalid_content_type"
            )
        if headers.get("content-encoding", "identity") != "identity":
            raise BadRequestError("Compressed request bodies are not supported.", code="invalid_content_encoding")
        self.filename: str | None = None
        """The file's name on the client, once its header has arrived."""
        self._values: dict[str, bytearray] = {}
        self._content: list[bytes] = []
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._part = ""
        self._num_parts = 0
        self._ended = False
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._add_data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed() from error

    def feed(self, data: bytes) -> list[bytes]:
        """Parse the next bytes of the body.

        Args:
            data: the bytes.

        Returns:
            Those that belong to the file, in order.

        Raises:
            BadRequestError: the body is not the form of an upload.
        """
        self._content = []
        try:
            self._parser.write(data)
        except FormParserError as error:
            if len(self._header[1]) > MAX_FILENAME_CHARS:
                raise BadRequestError(
                    f"A header in the form is too long; the file's name has at most {MAX_FILENAME_CHARS} characters.",
                    param="file",
                    code="invalid_form",
                ) from error
            raise _malformed() from error
        return self._content

    def close(self) -> dict[str, Any]:
        """The fields other than the file, nested ones as objects.

        Raises:
            BadRequestError: the form is incomplete, or has no file.
        """
        if not self._ended:
            raise _malformed()
        if self.filename is None:
            raise BadRequestError("'file' is missing.", param="file", code="missing_required_parameter")
        fields: dict[str, Any] = {}
        for name, value in self._values.items():
            nested = _NESTED.fullmatch(name)
            outer, inner = nested.groups() if nested else (name, None)
            text = _text(value, name)
            if inner is None:
                if outer in fields:
                    raise _duplicate(outer)
                fields[outer] = text
            elif isinstance(members := fields.setdefault(outer, {}), dict):
                members[inner] = text
            else:
                raise _duplicate(outer)
        return fields

    def _begin_part(self) -> None:
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise BadRequestError(f"The form has more than {MAX_PARTS} parts.", code="invalid_form")
        self._disposition = b""

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _end_headers(self) -> None:
        disposition, options = parse_options_header(self._disposition.decode("latin-1"))
        if disposition != b"form-data" or b"name" not in options:
            raise _malformed()
        self._part = name = _text(options[b"name"], "file")[:100]
        if name in self._values or (name == "file" and self.filename is not None):
            raise _duplicate(name)
        if name != "file":
            if b"filename" in options:
                raise _unexpected_file(name)
            self._values[name] = bytearray()
            return
        if not options.get(b"filename"):
            raise BadRequestError("'file' must be a file with a name.", param=name, code="invalid_type")
        self.filename = _text(options[b"filename"], name)
        if _UNSHOWABLE.search(self.filename):
            raise BadRequestError("The file's name has control characters or turns the direction of text.", param=name)
        if len(self.filename) > MAX_FILENAME_CHARS:
            raise BadRequestError(
                f"The file's name has {len(self.filename)} characters; the limit is {MAX_FILENAME_CHARS}.",
                param=name,
                code="string_above_max_length",
            )

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == "file":
            self._content.append(data[start:end])
            return
        value = self._values[self._part]
        value += data[start:end]
        if len(value) > MAX_FIELD_BYTES:
            raise BadRequestError(
                f"'{self._part}' is longer than {MAX_FIELD_BYTES} bytes.",
                param=self._part,
                code="string_above_max_length",
            )

    def _end(self) -> None:
        self._ended = True


def _text(value: bytes | bytearray, param: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequestError("The form's names and values must be UTF-8.", param=param, code="invalid_form") from error


def _malformed() -> BadRequestError:
    return BadRequestError("The body is not a complete multipart form.", code="invalid_form")


def _duplicate(name: str) -> BadRequestError:
    return BadRequestError(f"The form has the field '{name}' twice.", param=name, code="invalid_value")


def _unexpected_file(name: str) -> BadRequestError:
    return BadRequestError(
        f"'{name}' is a file; only the field 'file' can be one.", param=name, code="unknown_parameter"
    )
