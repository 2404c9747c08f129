"""TIFF: takes the page that is the image, and what Pillow reads wrongly of it. Pure.

Pillow takes 16-bit samples in separate planes for 8-bit ones, does not invert 16-bit gray whose zero is white, and
starts with the first page, which may be a thumbnail. Camera raw files are TIFFs, of which only the thumbnail could be
read; they are refused by name.

Source: TIFF 6.0 (NewSubfileType, PhotometricInterpretation, PlanarConfiguration); DNG 1.7; Pillow 13 `TiffImagePlugin`.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from PIL import Image, TiffImagePlugin

from server.media.errors import MediaError

MAX_PAGES = 64
"""Pages that are looked at for the image."""

_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _BITS, _PHOTOMETRIC, _PLANES = 254, 255, 258, 262, 284
_REDUCED, _MASK = 1, 4
_WHITE_IS_ZERO = 0
_DEEP_GRAY = ("I;16", "I;16B", "I;16L")

# 16-bit gray whose zero is white, of either byte order: read as if zero were black, and inverted by `upright`.
TiffImagePlugin.OPEN_INFO[(b"MM", 0, (1,), 1, (16,), ())] = ("I;16B", "I;16B")


def choose_page(image: TiffImagePlugin.TiffImageFile) -> tuple[str, ...]:
    """Go to the page that is the image, ready to load; returns notes for the client.

    Raises:
        MediaError: the file is a camera's raw file, or holds nothing but thumbnails.
        Exception: whatever Pillow raises for a damaged file.
    """
    kinds = list(_kinds(image))
    page = kinds.index("whole") if "whole" in kinds else None
    if page is None:
        raise MediaError(
            "invalid_media_format",
            "This is a camera's raw file, or a TIFF of which only a thumbnail can be read; convert it to JPEG.",
        )
    image.seek(page)
    _mend_planes(image)
    if len(kinds) < 2:
        return ()
    skipped = "" if page == 0 else "; those before it are smaller copies"
    return (f"Page {page + 1} of the TIFF's {len(kinds)} was read{skipped}. Send other pages as images of their own.",)


def upright(image: Image.Image, photometric: int | None) -> Image.Image:
    """A loaded page with black where it is black.

    Args:
        image: as loaded.
        photometric: its PhotometricInterpretation.
    """
    if photometric != _WHITE_IS_ZERO or image.mode not in _DEEP_GRAY:
        return image
    return Image.fromarray(65_535 - np.asarray(image).astype(np.uint16))


def photometric(image: TiffImagePlugin.TiffImageFile) -> int | None:
    """The PhotometricInterpretation of the page an image is at."""
    value = image.tag_v2.get(_PHOTOMETRIC)
    return value if isinstance(value, int) else None


def _kinds(image: TiffImagePlugin.TiffImageFile) -> Iterator[Literal["whole", "part", "unknown"]]:
    """Whether each page is an image of full size, a smaller copy or mask, or of a kind that cannot be read."""
    for page in range(MAX_PAGES):
        try:
            image.seek(page)
        except EOFError:
            return
        except (SyntaxError, OSError, ValueError, TypeError, KeyError):
            yield "unknown"  # a sensor's samples, for example
            continue
        kind = image.tag_v2.get(_NEW_SUBFILE_TYPE, 0)
        is_part = isinstance(kind, int) and kind & (_REDUCED | _MASK)
        yield "part" if is_part or image.tag_v2.get(_SUBFILE_TYPE) == 2 else "whole"


def _mend_planes(image: TiffImagePlugin.TiffImageFile) -> None:
    """Have uncompressed planes read with as many bits as they have."""
    tags = image.tag_v2
    if tags.get(_PLANES) != 2 or set(tags.get(_BITS, ())) != {16}:
        return
    order = "L" if tags.prefix == b"II" else "B"
    image.tile = [
        tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:]))
        if tile.codec_name == "raw" and isinstance(tile.args, tuple) and len(str(tile.args[0])) == 1
        else tile
        for tile in image.tile
    ]
