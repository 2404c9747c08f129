"""Converts a decoded image of any mode and color space to opaque sRGB: ICC profiles, CMYK, palettes, alpha. Pure.

An embedded ICC profile is applied; without one, samples count as sRGB, as in every viewer. Colors are converted first,
transparency is laid on white after that, as qwen-vl-utils does.

Source: ICC.1:2022 section 7.2 (the profile header); Pillow 12 `ImageCms`, which calls Little CMS.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from server.media.errors import MediaError

MAX_PROFILE_BYTES = 8 << 20
"""A larger profile is ignored; those of printing presses have up to 3 MB."""
SAME = 2
"""Difference, of 255, up to which a profile counts as sRGB and is skipped."""

_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_STRAIGHT = {"La": "LA", "RGBa": "RGBA"}
"""Modes with samples already multiplied by their opacity, and the same without."""
_MODES_OF_SPACE = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}


class ProfileError(Exception):
    """An ICC profile cannot be used; the text says why."""


def to_srgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert an image by the color profile it contains; returns it with notes for the client.

    A profile that cannot be used does not make an image unusable, so it is ignored with a note.

    Raises:
        MediaError: samples of 32 bits.
    """
    try:
        return to_rgb(image, image.info.get("icc_profile")), ()
    except ProfileError as error:
        return to_rgb(image), (f"The color profile {error}; the colors were assumed to be sRGB.",)


def to_rgb(image: Image.Image, profile: bytes | None = None) -> Image.Image:
    """Any mode to mode RGB: 16-bit gray scaled to 8 bits, palettes resolved, colors sRGB, transparency on white.

    Args:
        image: as decoded.
        profile: the ICC profile it contains; None: its samples are sRGB.

    Raises:
        MediaError: samples of 32 bits.
        ProfileError: the profile is damaged, too large, or for images of another mode.
    """
    if image.mode in _SIXTEEN_BIT_MODES:
        image = _from_sixteen_bit(image)
    if image.mode in ("I", "F"):
        raise MediaError(
            "invalid_media_mode",
            "Images with 32 bits per sample are not supported, as their brightness is undefined; use 8 or 16 bits.",
        )
    if image.mode in _STRAIGHT:
        image = image.convert(_STRAIGHT[image.mode])
    if not image.has_transparency_data:
        return _srgb(image, profile)
    if image.mode not in ("LA", "RGBA"):
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    opaque = Image.new("RGB", image.size, "white")
    opaque.paste(_srgb(image.convert("L" if image.mode == "LA" else "RGB"), profile), mask=image.getchannel("A"))
    return opaque


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An opaque image in sRGB."""
    if image.mode == "LAB":
        return _apply(ImageCms.buildTransform(ImageCms.createProfile("LAB"), _SRGB, "LAB", "RGB"), image)
    if profile is None:
        return image if image.mode == "RGB" else image.convert("RGB")
    mode = _mode_of(profile)
    if mode == "RGB":
        image = image.convert("RGB") if image.mode not in ("RGB", "CMYK") else image
    elif mode == "L" and image.mode == "1":
        image = image.convert("L")
    if image.mode != mode:
        raise ProfileError(f"is for {mode} images, not {image.mode}")
    transform = _transform(profile)
    return image if transform is None else _apply(transform, image)


@lru_cache(maxsize=8)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """The conversion from a profile to sRGB; None where that makes no visible difference."""
    mode = _mode_of(profile)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise ProfileError("is damaged") from error
    if mode == "RGB":
        steps = np.arange(0, 256, 15, np.uint8)
        grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(len(steps), -1, 3)
        sample = np.asarray(_apply(transform, Image.fromarray(grid))).astype(np.int16)
        if np.abs(sample - grid).max() <= SAME:
            return None
    return transform


def _apply(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    try:
        return transform.apply(image)
    except (ImageCms.PyCMSError, ValueError) as error:
        raise ProfileError("is damaged") from error


def _mode_of(profile: bytes) -> str:
    """The mode of the images a profile is for, from its header."""
    if len(profile) > MAX_PROFILE_BYTES:
        raise ProfileError(f"has {len(profile)} bytes; the limit is {MAX_PROFILE_BYTES}")
    if profile[36:40] != b"acsp":
        raise ProfileError("is damaged")
    space = profile[16:20].decode("latin-1")
    if space not in _MODES_OF_SPACE:
        raise ProfileError("is of an unknown color space")
    return _MODES_OF_SPACE[space]


def _from_sixteen_bit(image: Image.Image) -> Image.Image:
    samples = np.asarray(image).astype(np.uint32)
    gray = Image.fromarray(((samples * 255 + 32_767) // 65_535).astype(np.uint8))
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return gray
    gray.putalpha(Image.fromarray(np.where(samples == transparent, 0, 255).astype(np.uint8)))
    return gray


_SRGB = ImageCms.createProfile("sRGB")
