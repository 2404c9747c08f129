"""HEIC files as phones write them, box by box: single images, bursts, grids of tiles, transparency, turned ones.

The images are coded by FFmpeg's x265, in a process of its own: one that codes 8 bits beside 10 damages both.

Source: ISO/IEC 23008-12 (HEIF); ISO/IEC 14496-12 for the boxes; ISO/IEC 14496-15 for `hvcC`.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from multiprocessing import get_context

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from tests.support.images import Pixels

SRGB = (1, 13)
"""H.273's code points of primaries and transfer."""
_X265 = "log-level=none:range=full:pools=none:frame-threads=1:no-wpp=1"
_ALPHA = b"urn:mpeg:hevc:2015:auxid:1\0"


@dataclass(frozen=True)
class _Item:
    kind: bytes
    data: bytes
    properties: Sequence[bytes]
    references: Mapping[bytes, Sequence[int]] = field(default_factory=dict)
    """By kind: numbers of other items, from 1."""
    is_hidden: bool = False


def heic(*images: Pixels, primary: int = 0, points: tuple[int, int] = SRGB) -> bytes:
    """A HEIC file of images.

    Args:
        images: RGB or RGBA, one image each.
        primary: which one is the primary image.
        points: code points of primaries and transfer.
    """
    items: list[_Item] = []
    for pixels in images:
        items.append(_coded(pixels[..., :3], points))
        if pixels.shape[-1] == 4:
            items.append(_alpha(pixels[..., 3], of=len(items)))
    shown = [number for number, item in enumerate(items, start=1) if not item.is_hidden]
    return _file(items, shown[primary])


def grid(pixels: Pixels, tile: int, *, quarter_turns: int = 0, hidden: Pixels | None = None) -> bytes:
    """A HEIC whose primary image is made of square tiles.

    Args:
        pixels: RGB, whole, with sides that need not be multiples of the tile's.
        tile: side of a tile, at least 64.
        quarter_turns: counterclockwise, as a property of the whole.
        hidden: a further image that is not shown, such as a gain map.
    """
    height, width = pixels.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    padded = np.pad(pixels, ((0, rows * tile - height), (0, columns * tile - width), (0, 0)), mode="edge")
    pieces = padded.reshape(rows, tile, columns, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    tiles = [_coded(piece, SRGB, is_hidden=True) for piece in pieces]
    others = [] if hidden is None else [_coded(hidden, SRGB, is_hidden=True)]
    whole = _Item(
        b"grid",
        struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height),
        [_size(height, width), *([_box(b"irot", bytes([quarter_turns]))] if quarter_turns else [])],
        {b"dimg": range(1, len(tiles) + 1)},
    )
    return _file([*tiles, *others, whole], len(tiles) + len(others) + 1)


def _coded(pixels: Pixels, points: tuple[int, int], *, is_hidden: bool = False) -> _Item:
    """One coded image; RGB, without subsampling."""
    matrix = 9 if points[0] == 9 else 6
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    frame = frame.reformat(format="yuv444p", dst_colorspace=9 if matrix == 9 else 5, dst_color_range=2)
    configuration, data = _hevc(np.asarray(frame.to_ndarray(), np.uint8), "yuv444p")
    colors = _box(b"colr", b"nclx" + struct.pack(">HHHB", *points, matrix, 0x80))
    return _Item(b"hvc1", data, [configuration, _size(*pixels.shape[:2]), colors], is_hidden=is_hidden)


def _alpha(opacity: Pixels, *, of: int) -> _Item:
    configuration, data = _hevc(np.ascontiguousarray(opacity), "gray")
    kind = _full(b"auxC", _ALPHA)
    return _Item(b"hvc1", data, [configuration, _size(*opacity.shape), kind], {b"auxl": [of]}, is_hidden=True)


def _hevc(planes: Pixels, pixel_format: str) -> tuple[bytes, bytes]:
    """An `hvcC` box and the data of a frame, its NAL units with their lengths in front."""
    return _coder().submit(_coded_here, planes, pixel_format).result()


@cache
def _coder() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _coded_here(planes: Pixels, pixel_format: str) -> tuple[bytes, bytes]:
    context = av.CodecContext.create("libx265", "w")
    assert isinstance(context, VideoCodecContext)
    context.height, context.width = planes.shape[-2:]
    context.pix_fmt, context.time_base, context.thread_count = pixel_format, Fraction(1), 1
    context.options = {"crf": "1", "x265-params": _X265}
    frame = av.VideoFrame.from_ndarray(planes, format=pixel_format)
    frame.pts, frame.color_range = 0, 2
    stream = b"".join(map(bytes, [*context.encode(frame), *context.encode(None)]))
    units = [unit for unit in re.split(rb"\x00\x00\x00?\x01", stream) if unit]
    sets = {kind: next(unit for unit in units if unit[0] >> 1 == kind) for kind in (32, 33, 34)}
    content = b"".join(struct.pack(">I", len(unit)) + unit for unit in units if unit[0] >> 1 < 32)
    arrays = b"".join(struct.pack(">BHH", 0x80 | kind, 1, len(unit)) + unit for kind, unit in sets.items())
    chroma = 3 if pixel_format == "yuv444p" else 0
    # Profile, tier and level are as in the sequence parameter set, behind its header and one byte.
    head = b"\1" + sets[33][3:15] + struct.pack(">HBBBBHB", 0xF000, 0xFC, 0xFC | chroma, 0xF8, 0xF8, 0, 0x0F)
    return _box(b"hvcC", head + bytes([len(sets)]) + arrays), content


def _file(items: Sequence[_Item], primary: int) -> bytes:
    properties: list[bytes] = []
    owned = []
    for item in items:
        owned.append([len(properties) + number for number in range(1, len(item.properties) + 1)])
        properties += item.properties

    def meta(offsets: Sequence[int]) -> bytes:
        infos, places, references, associations = b"", b"", b"", b""
        for number, (item, offset) in enumerate(zip(items, offsets, strict=True), start=1):
            content = struct.pack(">HH4s", number, 0, item.kind) + b"\0"
            infos += _full(b"infe", content, version=2, flags=int(item.is_hidden))
            places += struct.pack(">HHHII", number, 0, 1, offset, len(item.data))
            for kind, others in item.references.items():
                references += _box(kind, struct.pack(f">HH{len(others)}H", number, len(others), *others))
            indices = owned[number - 1]
            associations += struct.pack(f">HB{len(indices)}H", number, len(indices), *(0x8000 | n for n in indices))
        return _full(
            b"meta",
            _full(b"hdlr", struct.pack(">I4s12s", 0, b"pict", b"") + b"\0")
            + _full(b"pitm", struct.pack(">H", primary))
            + _full(b"iloc", struct.pack(">BBH", 0x44, 0, len(items)) + places)
            + _full(b"iinf", struct.pack(">H", len(items)) + infos)
            + _full(b"iref", references)
            + _box(
                b"iprp",
                _box(b"ipco", b"".join(properties))
                + _full(b"ipma", struct.pack(">I", len(items)) + associations, flags=1),
            ),
        )

    start = _box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")
    first = len(start) + len(meta([0] * len(items))) + 8
    sizes = [len(item.data) for item in items]
    offsets = [first + sum(sizes[:number]) for number in range(len(items))]
    return start + meta(offsets) + _box(b"mdat", b"".join(item.data for item in items))


def _size(height: int, width: int) -> bytes:
    return _full(b"ispe", struct.pack(">II", width, height))


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def _full(name: bytes, content: bytes, *, version: int = 0, flags: int = 0) -> bytes:
    return _box(name, bytes([version]) + flags.to_bytes(3) + content)
