"""How large a medium becomes and how many tokens it costs: integers in, integers out.

What it does: the resize rule, the frame count of a clip, the pixel budget of a clip, the grid and the token count.
What it does not: touch a pixel or open a file. Twins that must agree: `model_executor/processor/patches.py` (rows
per grid), `model_executor/processor/mrope_positions.py` (positions per grid).

Source: Qwen2-VL report (arXiv 2409.12191) section 2.1 and 2.2; qwen-vl-utils `vision_process.py` for the formulas.
"""

import math
from dataclasses import dataclass

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
    """A medium whose shape the model cannot take: an empty side, or an aspect ratio above 200."""


@dataclass(frozen=True, slots=True)
class Size:
    """Height and width in pixels, both positive."""

    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Grid:
    """Patches of a medium: `t` temporal slices of `h` x `w` patches; `h` and `w` are even."""

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
    """The size a picture is resized to: multiples of 28 near the original, within the pixel limits.

    Rounds half to even. Each side is at least 28, so a very narrow picture may still exceed `max_pixels`; callers
    that need the limit to hold use `fit`.

    Raises:
        GeometryError: a side below 1 px, or the longer side more than 200 times the shorter.

    Source: qwen-vl-utils `smart_resize`; transformers' function of that name lacks the lower bound of 28 per side.
    """
    if height < 1 or width < 1:
        raise GeometryError(f"a picture of {width}x{height} px has no content")
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
    """`smart_resize` with `max_pixels` made strict: where the 28 px lower bound breaks it, the longer side gives way.

    Args:
        height: source height in pixels.
        width: source width in pixels.
        min_pixels: lower limit of the result's area; gives way to `max_pixels`.
        max_pixels: upper limit of the result's area; values under one token (784) count as one token.

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
    """The grid of a still picture resized to `size` (sides are multiples of 28)."""
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
    """How many frames of a clip the model sees: even, 2 to 768, two a second unless that leaves the limits.

    Never more than the clip has, except that a clip of one frame gives two (the frame twice).

    Args:
        num_source_frames: frames the clip holds, at least 1.
        duration_s: presentation time of the clip; 0 where unknown.
        fps: frames to take per second of presentation time, above 0.
        min_frames: lower limit, rounded up to even.
        max_frames: upper limit, rounded down to even and never above 768.

    Source: qwen-vl-utils `smart_nframes`; equal to it wherever it returns a value.
    """
    upper = min(max_frames, VIDEO_MAX_FRAMES, num_source_frames) // 2 * 2
    lower = -(-min_frames // 2) * 2
    wanted = min(max(duration_s * fps, lower), upper)
    return max(2, math.floor(wanted / 2) * 2)


def video_size(
    height: int,
    width: int,
    num_frames: int,
    *,
    min_pixels: int = VIDEO_FRAME_MIN_PIXELS,
    max_pixels: int = VIDEO_FRAME_MAX_PIXELS,
    total_pixels: int = MAX_VIDEO_TOKENS * TOKEN_PX,
) -> Size:
    """The one size all frames of a clip are resized to, so that the clip costs at most 16 384 tokens.

    Resolution gives way first, down to one token per slice. `min_pixels` holds only while the cap allows it.

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
    top = min(VIDEO_FRAME_MAX_PIXELS, max_pixels, total * TEMPORAL_PATCH_FRAMES // num_frames)
    return fit(height, width, min_pixels=min(min_pixels, top), max_pixels=top)


def _round(side: float) -> int:
    return max(FACTOR_PX, round(side / FACTOR_PX) * FACTOR_PX)


def _floor(side: float) -> int:
    return max(FACTOR_PX, math.floor(side / FACTOR_PX) * FACTOR_PX)


def _ceil(side: float) -> int:
    return math.ceil(side / FACTOR_PX) * FACTOR_PX
