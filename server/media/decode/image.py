"""Decodes an image (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF) to RGB pixels at the size the model sees. Pure.

The header alone decides whether the image is accepted and how large it becomes; only then is it decoded. Order of the
steps: sRGB on white (`server/media/decode/color.py`), bicubic resize (`server/media/decode/resize.py`), and the EXIF
orientation last, when the image is small: bicubic resizing is the same along both axes and in both directions, so that
the order makes no difference.

Source: Pillow 12 (`Image.draft`); the EXIF orientation values are EXIF 2.32's.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from model_executor.processor.geometry import GeometryError, Size, fit
from model_executor.processor.patches import Pixels
from server.media.decode.color import MAX_PROFILE_BYTES, to_srgb
from server.media.decode.resize import apply_transpose, resize, size_before_transpose
from server.media.errors import MediaError
from server.media.messages import ImageBudget

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats that are decoded; of animations and multi-page files, the first image."""

DRAFT_MARGIN = 3
"""A JPEG may be decoded at a reduced size as long as that is this many times the target size; on photos the result
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
    """An image whose header was read and accepted; `render` decodes its pixels.

    Args:
        file: the encoded image, at its start.
        max_source_pixels: limit of the image's area before resizing.

    Raises:
        MediaError: not an image of a supported format, damaged, or too large.
    """

    def __init__(self, file: BinaryIO, *, max_source_pixels: int) -> None:
        """Read the header."""
        with pillow_errors():
            if not file.read(1):
                raise MediaError("empty_media_file", "The image is empty (0 bytes).")
            file.seek(0)
            self._image: Image.Image = Image.open(file, formats=FORMATS)
        width, height = self._image.size
        check_source_pixels(width, height, max_source_pixels)
        self.notes: tuple[str, ...] = ()
        """What the client should know."""
        self._transpose = _UPRIGHT.get(self._read_orientation())
        self._full_size = self._image.size
        self.size = size_before_transpose(Size(height, width), self._transpose)
        """Upright, before resizing."""

    def render(self, size: Size) -> Pixels:
        """Decode and resize.

        Args:
            size: the result's.

        Returns:
            uint8 [size.height, size.width, 3], RGB.

        Raises:
            MediaError: truncated, corrupt, or of an unsupported color mode.
        """
        untransposed = size_before_transpose(size, self._transpose)
        with pillow_errors():
            # A reduced JPEG is rounded up to whole pixels at the right and bottom; the box excludes those.
            box = self._draft(untransposed)
            self._image.load()
            image, notes = to_srgb(self._image)
            self.notes += notes
            return apply_transpose(resize(image, untransposed, box), self._transpose)

    def _draft(self, size: Size) -> tuple[float, float, float, float] | None:
        """Have a JPEG decoded at a fraction of its size; returns the part of it that has content, or None."""
        if self._image.format not in ("JPEG", "MPO") or self._image.mode not in ("L", "RGB"):
            return None
        drafted = self._image.draft(self._image.mode, (DRAFT_MARGIN * size.width, DRAFT_MARGIN * size.height))
        return None if drafted is None or self._image.size == self._full_size else drafted[1]

    def _read_orientation(self) -> int:
        """The EXIF orientation; damaged EXIF does not make an image unusable, so it is ignored with a note."""
        if self._image.format == "TIFF":
            return 1  # Pillow applies it itself
        try:
            with pillow_errors():
                orientation = self._image.getexif().get(_ORIENTATION_TAG, 1)
        except MediaError:
            self.notes += ("The EXIF data is damaged; the image was assumed to be upright.",)
            return 1
        return orientation if isinstance(orientation, int) else 1


def image_size(source: Size, budget: ImageBudget) -> Size:
    """The size an image becomes.

    Raises:
        MediaError: the aspect ratio is above 200.
    """
    try:
        fit(source.height, source.width, min_pixels=budget.min_pixels, max_pixels=budget.max_pixels)
        height, width = budget.resized or (source.height, source.width)
        return fit(height, width, min_pixels=budget.min_pixels, max_pixels=budget.max_pixels)
    except GeometryError as error:
        raise MediaError("invalid_media_aspect_ratio", f"The image cannot be used: {error}.") from error


def check_source_pixels(width: int, height: int, max_source_pixels: int) -> None:
    """Reject an image or frame that is too large to decode (a decompression bomb).

    Raises:
        MediaError: more than `max_source_pixels`.
    """
    if width * height > max_source_pixels:
        raise MediaError(
            "media_too_large",
            f"{width}x{height} px are {width * height} pixels; the limit is {max_source_pixels} "
            "(media.max_source_pixels).",
        )


@contextmanager
def pillow_errors() -> Iterator[None]:
    """Turn whatever Pillow raises into a `MediaError`.

    Its decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError and more on damaged files, so every
    exception of a call into Pillow counts as damage; its warnings are about the file, too.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MediaError:
        raise
    except UnidentifiedImageError as error:
        raise MediaError(
            "invalid_media_format", f"The file is not an image in a supported format ({', '.join(FORMATS)})."
        ) from error
    except MemoryError as error:
        raise MediaError(
            "media_too_large", "Decoding the image needs more memory than media.max_worker_bytes."
        ) from error
    except Exception as error:
        if isinstance(error, ValueError) and "MAX_TEXT_CHUNK" in str(error):
            message = "The PNG's text chunk or color profile is too large when decompressed."
            raise MediaError("media_too_large", message) from error
        raise MediaError("media_parse_error", "The image is truncated or corrupt.") from error
