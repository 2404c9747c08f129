"""Renders a decoded video frame: rotated by its display matrix, with square pixels, in RGB, at the target size. Pure.

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
from server.media.decode.color import to_rgb
from server.media.decode.image import check_source_pixels
from server.media.decode.resize import apply_transpose, resize, resize_deep_frame, resize_frame, size_before_transpose
from server.media.decode.wide_color import ColorSpace, color_space, to_sdr
from server.media.errors import MediaError

Transpose = Image.Transpose | None


def render_frame(frame: VideoFrame, transpose: Transpose, size: Size, max_source_pixels: int) -> Pixels:
    """Convert a frame to pixels at the size the model sees.

    Args:
        frame: as decoded, of any pixel format.
        transpose: what makes it upright.
        size: the result's.
        max_source_pixels: limit of the frame's area; the frames of a video may differ.

    Returns:
        uint8 [size.height, size.width, 3], RGB, transparency on white.

    Raises:
        MediaError: too large, or of an unsupported pixel format.
    """
    check_source_pixels(frame.width, frame.height, max_source_pixels)
    untransposed = size_before_transpose(size, transpose)
    space = color_space(frame.color_primaries, frame.color_trc)
    try:
        if any(component.is_alpha for component in frame.format.components):
            return apply_transpose(resize(_on_white(frame, space), untransposed), transpose)
        if space is None:
            return apply_transpose(resize_frame(frame, untransposed), transpose)
        pixels = to_sdr(resize_deep_frame(frame, untransposed), space)
        if pixels.shape[:2] != (untransposed.height, untransposed.width):
            pixels = resize(Image.fromarray(np.ascontiguousarray(pixels)), untransposed)
        return apply_transpose(pixels, transpose)
    except (av.FFmpegError, ValueError) as error:
        raise MediaError("invalid_media_mode", f"Unsupported pixel format: {frame.format.name}.") from error


def _on_white(frame: VideoFrame, space: ColorSpace | None) -> Image.Image:
    """A frame with transparency at its own size, mode RGB."""
    if space is None:
        return to_rgb(Image.fromarray(frame.to_ndarray(format="rgba", threads=1)))
    deep = np.asarray(frame.to_ndarray(format="rgba64le", threads=1), np.uint16)
    colors = to_sdr(np.moveaxis(deep[..., :3], -1, 0), space)
    return to_rgb(Image.fromarray(np.dstack([colors, (deep[..., 3] >> 8).astype(np.uint8)])))


def display_size(frame: VideoFrame, aspect: Fraction, transpose: Transpose) -> Size:
    """The frame's size upright and with square pixels: the side whose pixels are longer grows."""
    square = Fraction(1)
    aspect = aspect if aspect > 0 else square
    width = round(frame.width * max(aspect, square))
    height = round(frame.height / min(aspect, square))
    return size_before_transpose(Size(height, width), transpose)


def find_transpose(frame: VideoFrame) -> Transpose:
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
