"""A picture's bytes to RGB pixels at the size the model sees. Pure; runs in a media worker.

The header alone decides whether the picture is taken and how large it becomes; only then is it decoded. The order of
steps: sRGB on white (`server/media/decode/color.py`), bicubic (`server/media/decode/resize.py`), turned upright
last, when the
picture is small. Bicubic resizing is the same along both axes and in both directions, so that turning first would give
the same.

Source: Pillow 12 (`Image.draft`); the EXIF orientation values are EXIF 2.32's.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from model_executor.processor.geometry import GeometryError, Size, fit
from model_executor.processor.patches import Pixels
from server.core.errors import BadRequestError, ClientError
from server.media.decode.color import MAX_PROFILE_BYTES, in_srgb
from server.media.decode.resize import lying, resize, turned
from server.media.messages import ImageBudget

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""What is decoded; of animations and multi-page files, the first picture."""

DRAFT_MARGIN = 3
"""A JPEG may be decoded at a reduced size as long as that is this many times the size wanted; on photos the result
stays within 1/255 mean absolute difference of a full decode."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# `media.max_source_pixels` is the one limit.
Image.MAX_IMAGE_PIXELS = None
# Color profiles count as text in PNG.
PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE_BYTES


class ImageDecoder:
    """A picture whose header was read and accepted; its pixels come with `render`.

    Args:
        file: the encoded picture, at its start.
        max_source_pixels: limit of the picture's area before resizing.

    Raises:
        BadRequestError: not a picture of a known format, damaged, or too large.
    """

    def __init__(self, file: BinaryIO, *, max_source_pixels: int) -> None:
        with translated():
            if not file.read(1):
                raise BadRequestError("The picture is empty (0 bytes).")
            file.seek(0)
            self._image: Image.Image = Image.open(file, formats=FORMATS)
        width, height = self._image.size
        refuse_bomb(width, height, max_source_pixels)
        self.notes: tuple[str, ...] = ()
        """What a person should know."""
        self._turn = _UPRIGHT.get(self._read_orientation())
        self._full_size = self._image.size
        self.size = lying(Size(height, width), self._turn)
        """Upright, before resizing."""

    def render(self, size: Size) -> Pixels:
        """Decode and resize.

        Args:
            size: the result's.

        Returns:
            uint8 [size.height, size.width, 3], RGB.

        Raises:
            BadRequestError: truncated, corrupt, or of a color mode without a meaning here.
        """
        lying_size = lying(size, self._turn)
        with translated():
            # A reduced JPEG is rounded up to whole pixels at the right and bottom; the box leaves those out.
            box = self._draft(lying_size)
            self._image.load()
            image, notes = in_srgb(self._image)
            self.notes += notes
            return turned(resize(image, lying_size, box), self._turn)

    def _draft(self, size: Size) -> tuple[float, float, float, float] | None:
        """Ask for a JPEG decoded at a fraction of its size; gives the part of it that has content, or None."""
        if self._image.format not in ("JPEG", "MPO") or self._image.mode not in ("L", "RGB"):
            return None
        drafted = self._image.draft(self._image.mode, (DRAFT_MARGIN * size.width, DRAFT_MARGIN * size.height))
        return None if drafted is None or self._image.size == self._full_size else drafted[1]

    def _read_orientation(self) -> int:
        """The EXIF orientation; damaged EXIF does not make a picture useless, so it is told and left out."""
        if self._image.format == "TIFF":
            return 1  # Pillow turns these itself
        try:
            with translated():
                orientation = self._image.getexif().get(_ORIENTATION_TAG, 1)
        except BadRequestError:
            self.notes += ("The EXIF data is damaged; the picture was taken as upright.",)
            return 1
        return orientation if isinstance(orientation, int) else 1


def picture_size(source: Size, budget: ImageBudget) -> Size:
    """The size a picture becomes.

    Raises:
        BadRequestError: the aspect ratio is above 200.
    """
    try:
        fit(source.height, source.width, min_pixels=budget.min_pixels, max_pixels=budget.max_pixels)
        height, width = budget.resized or (source.height, source.width)
        return fit(height, width, min_pixels=budget.min_pixels, max_pixels=budget.max_pixels)
    except GeometryError as error:
        raise BadRequestError(f"The picture cannot be used: {error}.") from error


def refuse_bomb(width: int, height: int, max_source_pixels: int) -> None:
    """Refuse a picture or frame that is too large to decode.

    Raises:
        BadRequestError: more than `max_source_pixels`.
    """
    if width * height > max_source_pixels:
        raise BadRequestError(
            f"{width}x{height} px are {width * height} pixels; at most {max_source_pixels} are decoded "
            "(media.max_source_pixels)."
        )


@contextmanager
def translated() -> Iterator[None]:
    """Turn whatever Pillow raises into our error.

    Its decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError and more on damaged files, so
    everything that leaves a call into Pillow counts as damage; its warnings are about the file, too.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ClientError:
        raise
    except UnidentifiedImageError as error:
        raise BadRequestError(f"Not a picture in a known format ({', '.join(FORMATS)}).") from error
    except ValueError as error:
        if "MAX_TEXT_CHUNK" in str(error):
            raise BadRequestError("A text or color profile in the PNG unpacks to too much.") from error
        raise BadRequestError("The picture is truncated or corrupt.") from error
    except MemoryError as error:
        raise BadRequestError("Decoding the picture needs more memory than media.max_worker_bytes.") from error
    except Exception as error:
        raise BadRequestError("The picture is truncated or corrupt.") from error
