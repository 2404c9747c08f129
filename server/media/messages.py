"""Messages between the worker pool and a worker process, as JSON lines: one job in, progress and one outcome out.

Plain values only, and nothing that decodes is imported here: both sides read it.
"""

import msgspec

from server.media.errors import MediaErrorCode


class ImageBudget(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    """What one image may become: the client's limits, already clamped by the server's."""

    min_pixels: int
    max_pixels: int
    resized: tuple[int, int] | None
    """(height, width) the client requests instead of the image's own; None for its own."""
    max_source_pixels: int


class VideoBudget(msgspec.Struct, frozen=True, kw_only=True, tag="video"):
    """What one video may become: the client's limits, already clamped by the server's."""

    fps: float
    """Frames to sample per second; of a list of frames, the rate they were sampled at."""
    min_frames: int
    max_frames: int
    min_pixels: int
    max_pixels: int
    total_pixels: int
    """Pixels over all temporal slices."""
    resized: tuple[int, int] | None
    """(height, width) the client requests instead of the video's own; None for its own."""
    video_start: float | None
    """Seconds."""
    video_end: float | None
    """Seconds."""
    only_frame: tuple[int, int] | None = None
    """(k, n): the k-th of n frames of the video, evenly spaced, as an image; None: the video."""
    max_s: float
    """Longest video allowed, in seconds of presentation time."""
    max_source_pixels: int


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One image or video to prepare."""

    contents: list[str]
    """Paths of encoded files: one image or video, or the frames of a video in order."""
    is_frame_list: bool
    """Whether `contents` are images that make up one video."""
    output: str | None
    """File to write the patches to; it exists. None: only read the headers and report what it would become."""
    budget: ImageBudget | VideoBudget
    timeout_s: float
    """After this time and a little more the worker ends itself, in case the server is gone and cannot kill it."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker waits for jobs; its first line."""

    sandbox_error: str | None = None
    """Why the worker can use the network, start programs and send signals; None where it cannot."""
    files_error: str | None = None
    """Why the worker can open all files; None where it can open those of its jobs only."""


class FramesDone(msgspec.Struct, frozen=True, tag="frames_done"):
    """How far a video is; sent now and then before the outcome."""

    num_done: int
    num_total: int


class Prepared(msgspec.Struct, frozen=True, kw_only=True, tag="prepared"):
    """What an image or video became; after reading the headers only: what it becomes if they are correct."""

    grid: tuple[int, int, int]
    source_size: tuple[int, int]
    """(height, width), upright."""
    num_source_frames: int = 1
    """Frames from the first one sampled to the last, those in between included; 1 for an image."""
    size: tuple[int, int]
    """(height, width) the model sees."""
    frame_times_s: list[float] = []
    effective_fps: float | None = None
    notes: list[str] = []


class Rejected(msgspec.Struct, frozen=True, tag="rejected"):
    """The image or video cannot be used; the fields are those of `MediaError`."""

    code: MediaErrorCode
    message: str
    limit: str | None


class NoSpace(msgspec.Struct, frozen=True, tag="no_space"):
    """The shared-memory file system is full."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A bug of the server; the traceback is for the log."""

    traceback: str


Outcome = Prepared | Rejected | NoSpace | Failed
