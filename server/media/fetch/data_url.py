"""Decodes `data:` URLs the way browsers read them, and base64url besides. Pure.

Line breaks, blanks and percent signs may stand in the data, and padding may be missing.

Source: https://fetch.spec.whatwg.org/#data-urls, https://infra.spec.whatwg.org/#forgiving-base64, RFC 4648 section 5.
"""

import binascii
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from server.media.errors import MediaError

BLANKS = "".join(map(chr, range(0x21)))
"""Characters that do not count around a URL: controls and spaces."""
_MAX_HEAD_CHARS = 1024
_HEAD = re.compile(r"data:.*;base64", re.IGNORECASE | re.DOTALL)
_FORGIVING = str.maketrans("-_", "+/", "\t\n\f\r ")


def decoded(url: str, *, slice_chars: int = 1 << 20) -> Iterator[bytes]:
    """The data of a URL, piece by piece.

    Args:
        url: begins with `data:` in any case.
        slice_chars: characters decoded at a time.

    Raises:
        MediaError: it is malformed.
    """
    comma = url.find(",", 0, _MAX_HEAD_CHARS)
    if comma < 0 or not _HEAD.fullmatch(url[:comma].translate(_FORGIVING)):
        raise MediaError("invalid_media_url", "A data: URL must have the form data:MEDIA-TYPE;base64,DATA.")
    escape = pending = ""
    for start in range(comma + 1, len(url), slice_chars):
        text = escape + url[start : start + slice_chars]
        cut = text.rfind("%", max(0, len(text) - 2)) if start + slice_chars < len(url) else -1
        text, escape = (text, "") if cut < 0 else (text[:cut], text[cut:])
        text = pending + _unescaped(text).translate(_FORGIVING)
        # The last group, which may be padded, is held back until it is known to be the last.
        whole = max(0, len(text) - 1) // 4 * 4
        pending = text[whole:]
        if "=" in text[:whole]:
            raise _base64_error()
        yield _decode(text[:whole])
    if len(pending) % 4:
        if len(pending) == 1 or "=" in pending:
            raise _base64_error()
        pending += "=" * (4 - len(pending))
    yield _decode(pending)


def _unescaped(text: str) -> str:
    if "%" not in text:
        return text
    try:
        return unquote_to_bytes(text).decode("latin-1")
    except ValueError as error:
        raise _base64_error() from error


def _decode(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise _base64_error() from error


def _base64_error() -> MediaError:
    return MediaError("invalid_base64_media", "The data: URL is not valid base64 (A-Z a-z 0-9 + /, padded with =).")
