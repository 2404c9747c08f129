"""An image or video as a request names it, and as the engine gets it: plain values, no work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from model_executor.engine import Modality
from model_executor.processor.geometry import TEMPORAL_PATCH_FRAMES, Grid, Size


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """How a client limits one image or video, in the API's names; None where it does not.

    `server/prompt/messages.py` declares them with their ranges; the server's own limits are applied later
    (`server/media/budget.py`).
    """

    min_pixels: int | None = None
    max_pixels: int | None = None
    resized_height: int | None = None
    resized_width: int | None = None
    # Of videos only:
    total_pixels: int | None = None
    fps: float | None = None
    nframes: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    video_start: float | None = None
    """Seconds."""
    video_end: float | None = None
    """Seconds."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """An uploaded file. Its path is the server's own and trusted; its content is not."""

    path: str


@dataclass(frozen=True, slots=True)
class MediaPart:
    """One image or video of a request, not fetched yet."""

    modality: Modality
    source: str | LocalFile | tuple[str, ...]
    """A URL, an uploaded file, or the URLs of a video's frames in order."""
    param: str
    """The request field, for errors: `messages[2].content[0].image_url`."""
    limits: MediaLimits = MediaLimits()
    limit_params: Mapping[str, str] = field(default_factory=dict)
    """The request field of each limit: `{"fps": "messages[2].content[0].fps"}`."""
    frame: tuple[int, int] | None = None
    """Of a video that is seen as several images: which of them this is, from 0, and of how many."""

    @property
    def seen_as(self) -> Modality:
        """What the model sees it as."""
        return self.modality if self.frame is None else "image"


@dataclass(frozen=True, slots=True)
class PreparedMedia:
    """One image or video, ready for the engine. `release` must be called once the request has ended."""

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
    """Presentation time of each sampled frame (videos only)."""
    effective_fps: float | None = None
    """Sampled frames per second of presentation time (videos only)."""
    notes: tuple[str, ...] = ()
    """What the client should know: a corrupt end that was left out, a rate that had to be lowered."""

    @property
    def slice_s(self) -> float:
        """Seconds from one temporal slice of a video to the next; 1, as at two frames a second, where unknown."""
        if self.modality == "image":
            return 0.0
        return TEMPORAL_PATCH_FRAMES / self.effective_fps if self.effective_fps else 1.0
