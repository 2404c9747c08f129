"""A medium as a request names it, and as the engine gets it: plain values, no work."""

from collections.abc import Callable
from dataclasses import dataclass, field

from model_executor.engine import Modality
from model_executor.processor.geometry import Grid, Size


@dataclass(frozen=True, slots=True)
class PixelLimits:
    """Limits a client asks for on one part; None where it asks for none. All are clamped by the server's budget."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    resized_height: int | None = None
    resized_width: int | None = None
    # Clips only:
    total_pixels: int | None = None
    fps: float | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    video_start_s: float | None = None
    video_end_s: float | None = None


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of the server's own, trusted as a name; its content is as hostile as any."""

    path: str


@dataclass(frozen=True, slots=True)
class MediaPart:
    """One medium of a request, not fetched yet."""

    modality: Modality
    source: str | LocalFile | tuple[str, ...]
    """A URL, an uploaded file, or the URLs of a clip's frames in order."""
    param: str
    """The request field, for errors: `messages[2].content[0].image_url`."""
    limits: PixelLimits = PixelLimits()


@dataclass(frozen=True, slots=True)
class PreparedMedia:
    """One medium, engine-ready. `release` must be called once the request has ended."""

    modality: Modality
    grid: Grid
    digest: str
    """As `model_executor.engine.MediaItem.digest`."""
    path: str
    """As `model_executor.engine.MediaItem.path`."""
    source_size: Size
    """Pixels before resizing, upright."""
    size: Size
    """Pixels the model sees."""
    release: Callable[[], None]
    """Gives the shared memory back; may be called more than once."""
    frame_times_s: tuple[float, ...] = ()
    """Presentation time of each sampled frame (clips only)."""
    effective_fps: float | None = None
    """Sampled frames per second of presentation time (clips only)."""
    notes: tuple[str, ...] = field(default=())
    """What a person should know: a corrupt tail that was left out, a rate that had to fall."""
