"""Sizes, frame counts, grids and token counts of images and videos: integers in, integers out.

Has the resize rule, the frame count and pixel budget of a video, the grid and the token count; touches no pixel and
opens no file. Twins that must agree: `model_executor/processor/patches.py` (rows per grid),
`model_executor/processor/mrope_positions.py` (positions per grid).

Source: Qwen2-VL report (arXiv 2409.12191) section 2.1 and 2.2; qwen-vl-utils `vision_process.py` for the formulas.
"""

import math
from dataclasses import dataclass

CHANNELS = 3
"""Red, green, blue."""
PATCH_PX = 14
"""Side of one patch, in pixels."""
MERGE = 2
"""Patches per side that one token covers."""
FACTOR_PX = PATCH_PX * MERGE
"""Side of the square one token covers, in pixels."""
TEMPORAL_PATCH_FRAMES = 2
"""Frames of one temporal slice (depth of the 3-D convolution)."""
TOKEN_PX = FACTOR_PX * FACTOR_PX
"""Pixels one token covers."""

MAX_ASPECT_RATIO = 200
MAX_VIDEO_TOKENS = 16_384
VIDEO_FRAME_MAX_PIXELS = 768 * TOKEN_PX
VIDEO_FRAME_MIN_PIXELS = 128 * TOKEN_PX
VIDEO_FPS = 2.0
VIDEO_MIN_FRAMES = 4
VIDEO_MAX_FRAMES = 768


class GeometryError(Exception):
    """The model does not support an image or video of this shape: a side of 0 px, or an aspect ratio above 200."""


@dataclass(frozen=True, slots=True)
class Size:
    """Height and width in pixels, both positive."""

    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Grid:
    """Patches of an image or video: `t` temporal slices of `h` x `w` patches; `h` and `w` are even."""

    t: int
    h: int
    w: int

    @property
    def num_patches(self) -> int:
        """Rows of the patch array (`P`)."""
        return self.t * self.h * self.w

    @property
    def num_tokens(self) -> int:
        """Placeholder tokens in the prompt, without the two delimiters (`M`)."""
        return self.num_patches // (MERGE * MERGE)


def smart_resize(height: int, width: int, *, min_pixels: int, max_pixels: int) -> Size:
    """The size an image is resized to: multiples of 28 near the original, within the pixel limits.

    Rounds half to even. Each side is at least 28, so a very narrow image may still exceed `max_pixels`; callers
    that need the limit to hold use `fit`.

    Raises:
        GeometryError: a side below 1 px, or the longer side more than 200 times the shorter.

    Source: qwen-vl-utils `smart_resize`; transformers' function of that name lacks the lower bound of 28 per side.
    """
    if height < 1 or width < 1:
        raise GeometryError(f"an image of {width}x{height} px is empty")
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise GeometryError(f"the aspect ratio of {width}x{height} px is above {MAX_ASPECT_RATIO}")
    rounded = Size(_round(height), _round(width))
    area = rounded.height * rounded.width
    if area > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        return Size(_floor(height / shrink), _floor(width / shrink))
    if area < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        return Size(_ceil(height * grow), _ceil(width * grow))
    return rounded


def fit(height: int, width: int, *, min_pixels: int, max_pixels: int) -> Size:
    """`smart_resize` with a strict `max_pixels`: where the minimum of 28 px exceeds it, the longer side is shortened.

    Args:
        height: source height in pixels.
        width: source width in pixels.
        min_pixels: lower limit of the result's area; `max_pixels` takes precedence.
        max_pixels: upper limit of the result's area; values below one token (784) count as one token.

    Raises:
        GeometryError: as `smart_resize`.
    """
    max_pixels = max(max_pixels, TOKEN_PX)
    size = smart_resize(height, width, min_pixels=min(min_pixels, max_pixels), max_pixels=max_pixels)
    if size.height * size.width <= max_pixels:
        return size
    shorter = min(size.height, size.width, _floor(math.sqrt(max_pixels)))
    longer = _floor(max_pixels / shorter)
    return Size(shorter, longer) if size.height <= size.width else Size(longer, shorter)


def image_grid(size: Size) -> Grid:
    """The grid of an image resized to `size` (sides are multiples of 28)."""
    return Grid(1, size.height // PATCH_PX, size.width // PATCH_PX)


def video_grid(size: Size, num_frames: int) -> Grid:
    """The grid of `num_frames` (even) frames resized to `size`."""
    return Grid(num_frames // TEMPORAL_PATCH_FRAMES, size.height // PATCH_PX, size.width // PATCH_PX)


def num_video_frames(
    num_source_frames: int,
    duration_s: float,
    *,
    fps: float = VIDEO_FPS,
    min_frames: int = VIDEO_MIN_FRAMES,
    max_frames: int = VIDEO_MAX_FRAMES,
) -> int:
    """The number of frames to sample from a video: even, 2 to 768, two per second unless that exceeds the limits.

    Never more than the video has, except that a video of one frame gives two (the same frame twice).

    Args:
        num_source_frames: frames of the video, at least 1.
        duration_s: presentation time of the video; 0 if unknown.
        fps: frames to sample per second of presentation time, above 0.
        min_frames: lower limit, rounded up to even.
        max_frames: upper limit, rounded down to even and never above 768.

    Source: qwen-vl-utils `smart_nframes`; equal to it wherever it returns a value.
    """
    upper = min(max_frames, VIDEO_MAX_FRAMES, num_source_frames) // 2 * 2
    lower = -(-min_frames // 2) * 2
    num_frames = min(max(duration_s * fps, lower), upper)
    return max(2, math.floor(num_frames / 2) * 2)


def video_size(
    height: int,
    width: int,
    num_frames: int,
    *,
    min_pixels: int = VIDEO_FRAME_MIN_PIXELS,
    max_pixels: int = VIDEO_FRAME_MAX_PIXELS,
    total_pixels: int = MAX_VIDEO_TOKENS * TOKEN_PX,
) -> Size:
    """The size that all frames of a video are resized to, so that the video has at most 16 384 tokens.

    The resolution falls as far as needed, down to one token per slice; `min_pixels` applies only within the limit.

    Args:
        height: source height in pixels.
        width: source width in pixels.
        num_frames: sampled frames, even.
        min_pixels: lower limit per frame.
        max_pixels: upper limit per frame, clamped to 602 112.
        total_pixels: limit over all temporal slices, clamped to 16 384 tokens of 784 px.

    Raises:
        GeometryError: as `smart_resize`.
    """
    total = min(total_pixels, MAX_VIDEO_TOKENS * TOKEN_PX)
    limit = min(VIDEO_FRAME_MAX_PIXELS, max_pixels, total * TEMPORAL_PATCH_FRAMES // num_frames)
    return fit(height, width, min_pixels=min(min_pixels, limit), max_pixels=limit)


def _round(side: float) -> int:
    return max(FACTOR_PX, round(side / FACTOR_PX) * FACTOR_PX)


def _floor(side: float) -> int:
    return max(FACTOR_PX, math.floor(side / FACTOR_PX) * FACTOR_PX)


def _ceil(side: float) -> int:
    return math.ceil(side / FACTOR_PX) * FACTOR_PX
