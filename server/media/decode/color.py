"""A decoded picture of any mode and color space as opaque sRGB. Pure; runs in a media worker.

An embedded ICC profile is followed; without one, samples count as sRGB, as every viewer takes them. Colors are
converted first and transparency is laid on white after that, as qwen-vl-utils does.

Source: ICC.1:2022 section 7.2 (the profile header); Pillow 12 `ImageCms`, which calls Little CMS.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from server.core.errors import BadRequestError

MAX_PROFILE_BYTES = 8 << 20
"""A larger profile is not looked at; those of presses take up to 3 MB."""
SAME = 2
"""Difference, of 255, up to which a profile counts as sRGB and is skipped."""

_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_STRAIGHT = {"La": "LA", "RGBa": "RGBA"}
"""Modes with samples already multiplied by their opacity, and the same without."""
_MODES_OF_SPACE = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}


class ProfileError(Exception):
    """An ICC profile cannot be used; says why."""


def in_srgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """A picture by the color profile it carries, and what a person should know about that.

    A profile that cannot be used does not make a picture useless, so it is told and left out.

    Raises:
        BadRequestError: samples of 32 bits.
    """
    try:
        return to_rgb(image, image.info.get("icc_profile")), ()
    except ProfileError as error:
        return to_rgb(image), (f"The color profile {error}; the colors were taken as sRGB.",)


def to_rgb(image: Image.Image, profile: bytes | None = None) -> Image.Image:
    """Any mode to mode RGB: 16-bit gray scaled to 8 bits, palettes resolved, colors sRGB, transparency on white.

    Args:
        image: as decoded.
        profile: the ICC profile it carries; None takes its samples as sRGB.

    Raises:
        BadRequestError: samples of 32 bits.
        ProfileError: the profile is damaged, too large, or for pictures of another kind.
    """
    if image.mode in _SIXTEEN_BIT_MODES:
        image = _from_sixteen_bit(image)
    if image.mode in ("I", "F"):
        raise BadRequestError("Pictures with 32 bits a sample have no defined brightness; 8 and 16 bits are taken.")
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
    """An opaque picture in sRGB."""
    if image.mode == "LAB":
        return _applied(ImageCms.buildTransform(ImageCms.createProfile("LAB"), _SRGB, "LAB", "RGB"), image)
    if profile is None:
        return image if image.mode == "RGB" else image.convert("RGB")
    mode = _mode_of(profile)
    if mode == "RGB":
        image = image.convert("RGB") if image.mode not in ("RGB", "CMYK") else image
    elif mode == "L" and image.mode == "1":
        image = image.convert("L")
    if image.mode != mode:
        raise ProfileError(f"is for {mode} pictures, not {image.mode}")
    transform = _transform(profile)
    return image if transform is None else _applied(transform, image)


@lru_cache(maxsize=8)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None where that changes nothing to speak of."""
    mode = _mode_of(profile)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise ProfileError("is damaged") from error
    if mode == "RGB":
        steps = np.arange(0, 256, 15, np.uint8)
        grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(len(steps), -1, 3)
        sample = np.asarray(_applied(transform, Image.fromarray(grid))).astype(np.int16)
        if np.abs(sample - grid).max() <= SAME:
            return None
    return transform


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    try:
        return transform.apply(image)
    except (ImageCms.PyCMSError, ValueError) as error:
        raise ProfileError("is damaged") from error


def _mode_of(profile: bytes) -> str:
    """The mode of the pictures a profile is for, from its header."""
    if len(profile) > MAX_PROFILE_BYTES:
        raise ProfileError(f"has {len(profile)} bytes; at most {MAX_PROFILE_BYTES} are looked at")
    if profile[36:40] != b"acsp":
        raise ProfileError("is damaged")
    space = profile[16:20].decode("latin-1")
    if space not in _MODES_OF_SPACE:
        raise ProfileError("is of an unknown color space")
    return _MODES_OF_SPACE[space]


def _from_sixteen_bit(image: Image.Image) -> Image.Image:
    samples = np.asarray(image).astype(np.uint32)
    gray = Image.fromarray(((samples * 255 + 32_767) // 65_535).astype(np.uint8))
    see_through = image.info.get("transparency")
    if not isinstance(see_through, int):
        return gray
    gray.putalpha(Image.fromarray(np.where(samples == see_through, 0, 255).astype(np.uint8)))
    return gray


_SRGB = ImageCms.createProfile("sRGB")
