"""What the pool tells a worker and what it hears back, in JSON lines: a job, and some progress and one outcome.

Plain values only, and nothing that decodes is imported here: both sides read it.
"""

import msgspec

PATCH_BYTES_PER_PIXEL = 3
"""Bytes of patches per pixel and frame: RGB, uint8."""


class ImageBudget(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    """What one picture may become, client's wishes and server's limits already joined."""

    min_pixels: int
    max_pixels: int
    resized: tuple[int, int] | None
    """(height, width) the client asks for instead of the picture's own; None for its own."""
    max_source_pixels: int


class ClipBudget(msgspec.Struct, frozen=True, kw_only=True, tag="clip"):
    """What one clip may become, client's wishes and server's limits already joined."""

    fps: float
    """Frames to sample per second; of a list of frames, the rate they were sampled at."""
    min_frames: int
    max_frames: int
    min_pixels: int
    max_pixels: int
    total_pixels: int
    """Pixels over all temporal slices."""
    resized: tuple[int, int] | None
    """(height, width) the client asks for instead of the clip's own; None for its own."""
    start_s: float | None
    end_s: float | None
    max_s: float
    """Longest clip taken, in seconds of presentation time."""
    max_source_pixels: int


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One medium to prepare."""

    contents: list[str]
    """Files of encoded bytes: one picture or clip, or the frames of a clip in order."""
    is_frame_list: bool
    """Whether `contents` are pictures that make up one clip."""
    output: str | None
    """File to write the patches to; it exists. None: only read the headers and tell what it would become."""
    budget: ImageBudget | ClipBudget
    timeout_s: float
    """After this time and a little more the worker ends itself, in case nobody is left to kill it."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker listens; its first line."""

    open_network: str | None = None
    """Why the kernel leaves it network, other programs and signals; None where it has none of them."""
    open_files: str | None = None
    """Why the kernel leaves it all files; None where it has its own only."""


class FramesDone(msgspec.Struct, frozen=True, tag="frames_done"):
    """How far a clip is; told now and then before the outcome."""

    num_done: int
    num_total: int


class Prepared(msgspec.Struct, frozen=True, kw_only=True, tag="prepared"):
    """What a medium became; where its headers only were read: what it becomes if it holds what they say."""

    grid: tuple[int, int, int]
    source_size: tuple[int, int]
    """(height, width), upright."""
    num_source_frames: int = 1
    """Frames from the first one sampled to the last, those between included; 1 for a picture."""
    size: tuple[int, int]
    """(height, width) the model sees."""
    frame_times_s: list[float] = []
    effective_fps: float | None = None
    notes: list[str] = []


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The medium cannot be used; the message is for the client."""

    message: str


class NoSpace(msgspec.Struct, frozen=True, tag="no_space"):
    """The shared-memory file system is full."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A fault of ours; the traceback is for the log."""

    traceback: str


Outcome = Prepared | Refused | NoSpace | Failed
