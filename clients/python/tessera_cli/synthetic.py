"""Images and videos made for measuring: of a given size, each different, and as hard to encode as photographs are."""

import base64
import io
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from PIL import Image

CLIP_RATE = 24
"""Frames per second of made videos."""
_COARSE = 24
"""Blobs along the longer side of an image."""
_DRIFT_PX = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """What made media are like; sides in pixels."""

    width: int
    height: int
    duration_s: float = 0
    """Of a video."""


def image_url(rng: np.random.Generator, shape: Shape) -> str:
    """A JPEG as a `data:` URL."""
    buffer = io.BytesIO()
    Image.fromarray(_blobs(rng, shape.width, shape.height)).save(buffer, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def video_url(rng: np.random.Generator, shape: Shape) -> str:
    """An MP4 (H.264) as a `data:` URL: a view that drifts over a larger image.

    Raises:
        ImportError: PyAV is not installed.
    """
    import av  # only videos need it
    from av.video.stream import VideoStream

    num_frames = max(2, round(shape.duration_s * CLIP_RATE))
    width, height = shape.width // 2 * 2, shape.height // 2 * 2  # the codec halves the chroma
    travel = _DRIFT_PX * min(num_frames, 100)
    view = _blobs(rng, width + travel, height)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(CLIP_RATE), options={"preset": "ultrafast"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(num_frames):
            left = number * _DRIFT_PX % (travel + 1)
            frame = np.ascontiguousarray(view[:, left : left + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))
    return f"data:video/mp4;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _blobs(rng: np.random.Generator, width: int, height: int) -> npt.NDArray[np.uint8]:
    """uint8 [height, width, 3]: large soft blobs and a little noise."""
    scale = _COARSE / max(width, height)
    coarse = rng.integers(0, 256, (max(2, round(height * scale)), max(2, round(width * scale)), 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noisy = smooth + rng.integers(-6, 7, smooth.shape, np.int16)
    pixels: npt.NDArray[np.uint8] = np.clip(noisy, 0, 255).astype(np.uint8)
    return pixels
