"""Decodes an image (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIF) to RGB pixels at the size the model sees. Pure.

The header alone decides whether the image is accepted and how large it becomes; only then is it decoded. Order of the
steps: sRGB on white (`server/media/decode/color.py`), bicubic resize (`server/media/decode/resize.py`), and the EXIF
orientation last, when the image is small: bicubic resizing is the same along both axes and in both directions, so that
the order makes no difference. HDR is mapped to sRGB after the resize (`server/media/decode/wide_color.py`).

Source: Pillow 12 (`Image.draft`); the EXIF orientation values are EXIF 2.32's.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pi_heif import register_heif_opener
from PIL import Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from model_executor.processor.geometry import GeometryError, Size, fit
from model_executor.processor.patches import Pixels
from server.core.format_names import name_format, refusal
from server.core.mime import HEAD_BYTES
from server.media.decode.color import MAX_PROFILE_BYTES, to_rgb, to_srgb
from server.media.decode.formats import IMAGES
from server.media.decode.image_files import iso, jpeg, png, tiff
from server.media.decode.resize import apply_transpose, resize, size_before_transpose
from server.media.decode.wide_color import ColorSpace, color_space, to_sdr
from server.media.errors import MediaError
from server.media.messages import ImageBudget

FORMATS = tuple(name.upper() for name in IMAGES)
"""Formats that are decoded, by Pillow's names."""

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
register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


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
        self._file = file
        self._image = _open(file)
        self.notes: tuple[str, ...] = ()
        """What the client should know."""
        with pillow_errors():
            self.notes += self._choose_image()
        width, height = self._image.size
        check_source_pixels(width, height, max_source_pixels)
        with pillow_errors():
            self._space = self._read_color_space()
        self.notes += self._space.notes if self._space else ()
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
            image = self._load(untransposed)
            if self._space is not None:
                return apply_transpose(_resized_to_sdr(image, self._space, untransposed), self._transpose)
            image, notes = to_srgb(image)
            self.notes += notes
            return apply_transpose(resize(image, untransposed, box), self._transpose)

    def _choose_image(self) -> tuple[str, ...]:
        """Go to the image of a file that may have several; returns notes for the client."""
        if isinstance(self._image, TiffImagePlugin.TiffImageFile):
            return tiff.choose_page(self._image)
        count = getattr(self._image, "n_frames", 1) if self._image.format == "HEIF" else 1
        return (f"The primary image of the file's {count} was read.",) if count > 1 else ()

    def _read_color_space(self) -> ColorSpace | None:
        """The color space that the file names by code points, if that needs a conversion; a profile comes first."""
        points = None
        if self._image.format == "PNG":
            points = png.code_points(self._file)
        elif "icc_profile" not in self._image.info and self._image.format == "AVIF":
            points = iso.code_points(self._file)
        elif "icc_profile" not in self._image.info and "nclx_profile" in self._image.info:
            profile = self._image.info["nclx_profile"]
            points = profile["color_primaries"], profile["transfer_characteristics"]
        return None if points is None else color_space(*points)

    def _load(self, size: Size) -> Image.Image:
        """Decode the pixels, with what is particular about some formats."""
        image = self._image
        if image.format == "PNG":
            png.check_checksums(self._file)
        try:
            image.load()
        except OSError:
            if image.format not in ("JPEG", "MPO"):
                raise
            whole = jpeg.load_without_end(self._file, self._draft_arguments(size))
            if whole is None:
                raise
            self.notes += (jpeg.NOTE,)
            return whole
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            return tiff.upright(image, tiff.photometric(image))
        if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
            return image.convert("RGB")
        return image

    def _draft_arguments(self, size: Size) -> tuple[str, tuple[int, int]] | None:
        if self._image.format not in ("JPEG", "MPO") or self._image.mode not in ("L", "RGB"):
            return None
        return self._image.mode, (DRAFT_MARGIN * size.width, DRAFT_MARGIN * size.height)

    def _draft(self, size: Size) -> tuple[float, float, float, float] | None:
        """Have a JPEG decoded at a fraction of its size; returns the part of it that has content, or None."""
        arguments = self._draft_arguments(size)
        drafted = None if arguments is None else self._image.draft(*arguments)
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


def _open(file: BinaryIO) -> Image.Image:
    """Open an image, which is read as far as its header.

    Raises:
        MediaError: not an image of a supported format, or damaged.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if not head:
        raise MediaError("empty_media_file", "The image is empty (0 bytes).")
    file.seek(0)
    try:
        with pillow_errors():
            return Image.open(file, formats=FORMATS)
    except MediaError as error:
        name = name_format(head)
        if error.code != "invalid_media_format" or name is None:
            raise
        if (said := refusal(head)) is not None:
            raise MediaError("invalid_media_format", said) from error
        if name.upper() in (*FORMATS, "HEIC"):
            raise MediaError(
                "media_parse_error", f"The {name} image is truncated or corrupt; send it again."
            ) from error
        raise


def _resized_to_sdr(image: Image.Image, space: ColorSpace, size: Size) -> Pixels:
    """An image with a color space of its own, resized, in sRGB, transparency on white."""
    if image.has_transparency_data:
        pixels = np.asarray(image.convert("RGBA"))
        colors = to_sdr(_deep(pixels[..., :3]), space, srgb=True)
        return resize(to_rgb(Image.fromarray(np.dstack([colors, pixels[..., 3]]))), size)
    return to_sdr(_deep(resize(image.convert("RGB"), size)), space, srgb=True)


def _deep(pixels: Pixels) -> NDArray[np.uint16]:
    """Samples of 8 bits as those of 16, [H, W, 3] to [3, H, W]."""
    return np.moveaxis(pixels, -1, 0).astype(np.uint16) * 257


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
        raise MediaError("media_parse_error", "The image is truncated or corrupt; send it again.") from error
