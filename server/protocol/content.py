"""Messages and content parts of a request, as clients send them.

Pictures come as `image_url` (OpenAI) or `image` (qwen-vl-utils), clips as `video_url` (vLLM) or `video`
(qwen-vl-utils and DashScope: one URL, or the URLs of the frames). Limits may stand beside the URL or, where the URL has
an object of its own, inside it.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from server.protocol.wire import Unsupported, WireModel, conflict

_Pixels = Annotated[int, Field(ge=1, le=1 << 40)]
_Side = Annotated[int, Field(ge=1, le=1 << 20)]
_Frames = Annotated[int, Field(ge=1, le=1 << 20)]
_Seconds = Annotated[float, Field(ge=0, le=1e9)]
_Url = Annotated[str, Field(min_length=1)]


class ImageLimits(WireModel):
    """What a client may ask of a picture's size; the server's own limits apply as well."""

    min_pixels: _Pixels | None = None
    """Lower limit of the area the model sees."""
    max_pixels: _Pixels | None = None
    """Upper limit of the area the model sees."""
    resized_height: _Side | None = None
    """Height to resize to, in pixels, before rounding to a multiple of 28; with `resized_width`."""
    resized_width: _Side | None = None
    """Width to resize to, in pixels, before rounding to a multiple of 28; with `resized_height`."""

    @model_validator(mode="after")
    def _agree(self) -> "ImageLimits":
        _ordered(self.min_pixels, "max_pixels", self.max_pixels, "min_pixels")
        if (self.resized_height is None) != (self.resized_width is None):
            missing = "resized_height" if self.resized_height is None else "resized_width"
            raise conflict(missing, "is needed as well: the two sides are given together")
        return self


class VideoLimits(WireModel):
    """What a client may ask of a clip's sampling and size; the server's own limits apply as well."""

    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Frames sampled per second of presentation time; of a list of frames: the rate they were taken at."""
    min_frames: _Frames | None = None
    """Lower limit of the number of sampled frames."""
    max_frames: _Frames | None = None
    """Upper limit of the number of sampled frames."""
    min_pixels: _Pixels | None = None
    """Lower limit of the area of one frame."""
    max_pixels: _Pixels | None = None
    """Upper limit of the area of one frame."""
    total_pixels: _Pixels | None = None
    """Upper limit of the area of all temporal slices together."""
    video_start: _Seconds | None = None
    """Where to begin in the clip, in seconds."""
    video_end: _Seconds | None = None
    """Where to end in the clip, in seconds."""

    @model_validator(mode="after")
    def _agree(self) -> "VideoLimits":
        _ordered(self.min_pixels, "max_pixels", self.max_pixels, "min_pixels")
        _ordered(self.min_frames, "max_frames", self.max_frames, "min_frames")
        if self.video_end is not None and self.video_end <= (self.video_start or 0):
            raise conflict("video_end", "must be after 'video_start'")
        return self


class TextPart(WireModel):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageUrl(ImageLimits):
    """A picture's address."""

    url: _Url
    """`data:` or `http(s):` URL."""
    detail: Literal["auto", "low", "high"] = "auto"
    """low: at most 64 tokens. high, auto: as the server is configured."""


class ImageUrlPart(ImageLimits):
    """A picture, as OpenAI's API has it."""

    type: Literal["image_url"]
    image_url: ImageUrl


class ImagePart(ImageLimits):
    """A picture, as qwen-vl-utils has it."""

    type: Literal["image"]
    image: _Url


class VideoUrl(VideoLimits):
    """A clip's address."""

    url: _Url
    """`data:` or `http(s):` URL."""


class VideoUrlPart(VideoLimits):
    """A clip, as vLLM has it."""

    type: Literal["video_url"]
    video_url: VideoUrl


class VideoPart(VideoLimits):
    """A clip, as qwen-vl-utils and DashScope have it."""

    type: Literal["video"]
    video: Annotated[
        Annotated[_Url, Tag("<url>")] | Annotated[list[_Url], Field(min_length=1), Tag("<frames>")],
        Discriminator(lambda value: "<frames>" if isinstance(value, list) else "<url>"),
    ]
    """One URL, or the URLs of the frames in order."""


def _tag(field: str) -> Discriminator:
    """Tell the members of a union apart by `field`; the tags are written so that no client's key can equal them."""

    def read(value: Any) -> str | None:
        if isinstance(value, dict):
            return f"<{value.get(field)}>"
        return f"<{getattr(value, field, None)}>"

    return Discriminator(read, custom_error_type=f"unknown_{field}", custom_error_message=f"has no known {field}")


AnyPart = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[ImageUrlPart, Tag("<image_url>")]
    | Annotated[ImagePart, Tag("<image>")]
    | Annotated[VideoUrlPart, Tag("<video_url>")]
    | Annotated[VideoPart, Tag("<video>")],
    _tag("type"),
]
_TEXT_OR_PARTS = Discriminator(lambda value: "<parts>" if isinstance(value, list) else "<string>")
Content = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[AnyPart], Field(min_length=1), Tag("<parts>")], _TEXT_OR_PARTS
]
TextContent = Annotated[
    Annotated[str, Tag("<string>")]
    | Annotated[list[Annotated[Annotated[TextPart, Tag("<text>")], _tag("type")]], Field(min_length=1), Tag("<parts>")],
    _TEXT_OR_PARTS,
]


class SystemMessage(WireModel):
    """What the assistant is told to be; `developer` is another name for `system`."""

    role: Literal["system", "developer"]
    content: TextContent
    name: str | None = None


class UserMessage(WireModel):
    """What the user said and showed."""

    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(WireModel):
    """An earlier answer, or the beginning of one to continue."""

    role: Literal["assistant"]
    content: Content
    name: str | None = None
    annotations: list[Any] = Field(default=[], max_length=0)
    refusal: Unsupported = None
    audio: Unsupported = None
    tool_calls: Unsupported = None
    function_call: Unsupported = None


AnyMessage = Annotated[
    Annotated[SystemMessage, Tag("<system>")]
    | Annotated[SystemMessage, Tag("<developer>")]
    | Annotated[UserMessage, Tag("<user>")]
    | Annotated[AssistantMessage, Tag("<assistant>")],
    _tag("role"),
]


def _ordered(lower: float | None, upper_name: str, upper: float | None, lower_name: str) -> None:
    if lower is not None and upper is not None and lower > upper:
        raise conflict(upper_name, f"is below '{lower_name}'")
