"""AVIF: the color space that the properties of its primary item name; whether such a file has a track. Pure.

Source: ISO/IEC 23008-12 (HEIF) section 6.5; ISO/IEC 14496-12 sections 8.11 (`pitm`, `iprp`, `ipco`, `ipma`) and 12.1.5
(`colr`).
"""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

MAX_META_BYTES = 16 << 20
"""A larger `meta` box is not looked at."""

_Box = tuple[bytes, memoryview]


def code_points(file: BinaryIO) -> tuple[int, int] | None:
    """H.273's ColourPrimaries and TransferCharacteristics of the primary image; None if the file does not say."""
    meta = next((content for name, content in _top_boxes(file) if name == b"meta"), None)
    if meta is None:
        return None
    try:
        return _primary_code_points(meta[4:])
    except (struct.error, IndexError):
        return None  # damaged: the decoder will say so


def has_track(file: BinaryIO) -> bool:
    """Whether a file has a movie next to its images."""
    return any(name == b"moov" for name, _ in _top_boxes(file))


def _primary_code_points(meta: memoryview) -> tuple[int, int] | None:
    boxes = dict(_boxes(meta))
    properties = dict(_boxes(boxes.get(b"iprp", memoryview(b""))))
    primary = boxes.get(b"pitm", memoryview(b""))
    item = struct.unpack_from(">I" if primary[0] else ">H", primary, 4)[0]
    wanted = _property_indices(properties.get(b"ipma", memoryview(b"")), item)
    for number, (name, content) in enumerate(_boxes(properties.get(b"ipco", memoryview(b""))), start=1):
        if number in wanted and name == b"colr" and bytes(content[:4]) == b"nclx":
            primaries, transfer = struct.unpack_from(">HH", content, 4)
            return primaries, transfer
    return None


def _property_indices(box: memoryview, item: int) -> set[int]:
    """Numbers of the properties of an item, from 1, by an `ipma` box."""
    version, is_wide = box[0], box[3] & 1
    (count,) = struct.unpack_from(">I", box, 4)
    place = 8
    for _ in range(count):
        own = struct.unpack_from(">I" if version else ">H", box, place)[0]
        place += 4 if version else 2
        num_properties = box[place]
        place += 1
        indices = {
            struct.unpack_from(">H", box, place + 2 * n)[0] & 0x7FFF if is_wide else box[place + n] & 0x7F
            for n in range(num_properties)
        }
        place += num_properties * (2 if is_wide else 1)
        if own == item:
            return indices
    return set()


def _boxes(content: memoryview) -> Iterator[_Box]:
    place = 0
    while place + 8 <= len(content):
        size, name = struct.unpack_from(">I4s", content, place)
        if size < 8:
            return
        yield name, content[place + 8 : place + size]
        place += size


def _top_boxes(file: BinaryIO) -> Iterator[_Box]:
    """The outermost boxes; only that of `meta` comes with its content."""
    end = file.seek(0, os.SEEK_END)
    place = 0
    while place + 8 <= end:
        file.seek(place)
        size, name = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            size, head = int.from_bytes(file.read(8)), 16
        size = size or end - place
        if size < head:
            return
        is_wanted = name == b"meta" and size <= MAX_META_BYTES
        yield name, memoryview(file.read(size - head) if is_wanted else b"")
        place += size
