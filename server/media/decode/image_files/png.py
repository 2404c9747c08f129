"""PNG: the checksums of its chunks, and the color space that its cICP chunk names. Pure.

Source: PNG specification, third edition, sections 5.3 (chunks), 11.3.2.6 (cICP, which precedes iCCP).
"""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from server.media.errors import MediaError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_READ_BYTES = 1 << 20
_FRAME_DATA = b"fdAT"


def check_checksums(file: BinaryIO) -> None:
    """Check the checksums of what makes up the pixels. A chunk that is cut off is left to the decoder.

    Raises:
        MediaError: one is wrong.
    """
    for name, num_bytes in _chunks(file):
        if name[:1].isupper() or name == _FRAME_DATA:
            checksum = zlib.crc32(name)
            while num_bytes and (piece := file.read(min(num_bytes, _READ_BYTES))):
                checksum = zlib.crc32(piece, checksum)
                num_bytes -= len(piece)
            expected = file.read(4)
            if len(expected) == 4 and int.from_bytes(expected) != checksum:
                raise MediaError(
                    "media_parse_error",
                    f"The PNG is damaged: the checksum of its {name.decode('latin-1')} chunk is wrong. Send it again.",
                )


def code_points(file: BinaryIO) -> tuple[int, int] | None:
    """H.273's ColourPrimaries and TransferCharacteristics; None if the file does not say."""
    for name, num_bytes in _chunks(file):
        if name == b"cICP" and num_bytes == 4:
            content = file.read(4)
            return (content[0], content[1]) if len(content) == 4 else None
        if name == b"IDAT":
            break
    return None


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and size of each chunk, with the file at its content."""
    position = len(SIGNATURE)
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return
        num_bytes, name = struct.unpack(">I4s", head)
        yield name, num_bytes
        position += 12 + num_bytes
