"""How a decoded frame is shown: the right way up, with square pixels, in RGB.

Source: FFmpeg 8 `libavutil/display.h` for the display matrix.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

from model_executor.processor.geometry import Size
from model_executor.processor.patches import Pixels
from server.core.errors import BadRequestError
from server.media.decode.color import to_rgb
from server.media.decode.image import refuse_bomb
from server.media.decode.resize import lying, resize, resize_frame, turned

Turn = Image.Transpose | None


def pixels(frame: VideoFrame, turn: Turn, size: Size, max_source_pixels: int) -> Pixels:
    """A frame's pixels at the size the model sees.

    Args:
        frame: as decoded, of any pixel format.
        turn: what makes it upright.
        size: the result's.
        max_source_pixels: limit of the frame's area; a clip may change its size on the way.

    Returns:
        uint8 [size.height, size.width, 3], RGB, transparency on white.

    Raises:
        BadRequestError: too large, or of a pixel format without a conversion.
    """
    refuse_bomb(frame.width, frame.height, max_source_pixels)
    lying_size = lying(size, turn)
    try:
        if any(component.is_alpha for component in frame.format.components):
            image = to_rgb(Image.fromarray(frame.to_ndarray(format="rgba", threads=1)))
            return turned(resize(image, lying_size), turn)
        return turned(resize_frame(frame, lying_size), turn)
    except (av.FFmpegError, ValueError) as error:
        raise BadRequestError(f"The clip's pixel format {frame.format.name} cannot be converted.") from error


def display_size(frame: VideoFrame, aspect: Fraction, turn: Turn) -> Size:
    """The frame's size upright and with square pixels: the side whose pixels are longer grows."""
    square = Fraction(1)
    aspect = aspect if aspect > 0 else square
    width = round(frame.width * max(aspect, square))
    height = round(frame.height / min(aspect, square))
    return lying(Size(height, width), turn)


def turn_upright(frame: VideoFrame) -> Turn:
    """What makes the frame upright, from its display matrix, to the nearest quarter turn.

    The matrix (row vectors, 16.16 fixed point) sends (x, y), y down, to (a*x + c*y, b*x + d*y).
    """
    side_data = cast("Mapping[str, bytes]", frame.side_data)
    if "DISPLAYMATRIX" not in side_data:
        return None
    a, b, _, c, d = np.frombuffer(side_data["DISPLAYMATRIX"], dtype=np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return {
            (True, False): Image.Transpose.FLIP_LEFT_RIGHT,
            (False, True): Image.Transpose.FLIP_TOP_BOTTOM,
            (True, True): Image.Transpose.ROTATE_180,
        }.get((a < 0, d < 0))
    return {
        (False, True): Image.Transpose.ROTATE_270,
        (True, False): Image.Transpose.ROTATE_90,
        (False, False): Image.Transpose.TRANSPOSE,
        (True, True): Image.Transpose.TRANSVERSE,
    }[(b < 0, c < 0)]
