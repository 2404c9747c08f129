"""JPEG: reads one that lacks its end marker and nothing else. Pure."""

import io
from typing import BinaryIO

import numpy as np
from PIL import Image

END_MARKER = b"\xff\xd9"
NOTE = "The JPEG lacks its end marker; it was read as it is."
_NOISE = b"\xa5\x5a\x3c\x96" * 16


def load_without_end(file: BinaryIO, draft: tuple[str, tuple[int, int]] | None) -> Image.Image | None:
    """Decode a JPEG that its decoder calls cut off.

    The image is complete if bytes between its own and an end marker change nothing; where something is missing, they
    are taken for it.

    Args:
        file: the encoded image.
        draft: mode and size for `Image.draft`, as the caller used it.

    Returns:
        The image, loaded; None if more is missing than the marker.

    Raises:
        Exception: whatever Pillow raises for a damaged file.
    """
    file.seek(0)
    content = file.read().rstrip(b"\xff")
    images = []
    for filling in (b"", _NOISE):
        image = Image.open(io.BytesIO(content + filling + END_MARKER), formats=["JPEG", "MPO"])
        if draft is not None:
            image.draft(*draft)
        image.load()
        images.append(image)
    return images[0] if np.array_equal(np.asarray(images[0]), np.asarray(images[1])) else None
