"""Messages and content parts of a request, as clients send them.

Images come as `image_url` (OpenAI) or `image` (qwen-vl-utils), videos as `video_url` (vLLM) or `video`
(qwen-vl-utils and DashScope: one URL, or the URLs of the frames), and either as `file` (OpenAI). Limits may stand
next to the URL or, where the URL has an object of its own, inside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from model_executor.processor.geometry import FACTOR_PX
from server.api.base_models import MAX_FRAMES, MAX_PARTS, RequestModel, Unsupported, bounded, conflict
from server.tools.protocol import ToolCall

_Url = Annotated[str, Field(min_length=1)]

MAX_INTEGER = 2**31 - 1
MAX_FPS = 1_000.0


_Pixels = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
_Side = Annotated[int, Field(ge=FACTOR_PX, le=MAX_INTEGER)]
_Seconds = Annotated[float, Field(ge=0, le=MAX_INTEGER)]


class ImageLimits(RequestModel):
    """How a client limits an image's size. The server's own limits are applied on top (`server/media/budget.py`)."""

    min_pixels: _Pixels | None = None
    """Lower limit of the area the model sees: of the image, of one frame."""
    max_pixels: _Pixels | None = None
    """Upper limit of the area the model sees: of the image, of one frame."""
    resized_height: _Side | None = None
    """Height to resize to, in pixels, before rounding to a multiple of 28; with `resized_width`."""
    resized_width: _Side | None = None
    """Width to resize to, in pixels, before rounding to a multiple of 28; with `resized_height`."""


class VideoLimits(ImageLimits):
    """How a client limits a video's size and sampling."""

    total_pixels: _Pixels | None = None
    """Upper limit of the area of all temporal slices together."""
    fps: Annotated[float, Field(gt=0, le=MAX_FPS)] | None = None
    """Frames sampled per second of presentation time; of a list of frames: the rate they were sampled at."""
    nframes: Annotated[int, Field(ge=2, le=MAX_INTEGER)] | None = None
    """Number of sampled frames, rounded to even; not with `fps`, `min_frames` and `max_frames`."""
    min_frames: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None
    """Lower limit of the number of sampled frames."""
    max_frames: Annotated[int, Field(ge=2, le=MAX_INTEGER)] | None = None
    """Upper limit of the number of sampled frames."""
    video_start: _Seconds | None = None
    """Where to begin in the video, in seconds."""
    video_end: _Seconds | None = None
    """Where to end in the video, in seconds."""


class TextPart(RequestModel):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageUrl(ImageLimits):
    """An image's address."""

    url: _Url
    """`data:` or `http(s):` URL; `file:` where the server allows it."""
    detail: Literal["auto", "low", "high", "original"] = "auto"
    """low: at most 64 tokens. The others: as the server is configured."""


def _as_object(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


class ImageUrlPart(ImageLimits):
    """An image, as OpenAI's API has it."""

    type: Literal["image_url"]
    image_url: Annotated[ImageUrl, BeforeValidator(_as_object, json_schema_input_type=ImageUrl | str)]
    """The address, in an object or as it is."""


class ImagePart(ImageLimits):
    """An image, as qwen-vl-utils has it."""

    type: Literal["image"]
    image: _Url
    detail: Literal["auto", "low", "high", "original"] = "auto"
    """As `ImageUrl.detail`."""


class VideoUrl(VideoLimits):
    """A video's address."""

    url: _Url
    """`data:` or `http(s):` URL; `file:` where the server allows it."""


class VideoUrlPart(VideoLimits):
    """A video, as vLLM has it."""

    type: Literal["video_url"]
    video_url: Annotated[VideoUrl, BeforeValidator(_as_object, json_schema_input_type=VideoUrl | str)]
    """The address, in an object or as it is."""


class VideoPart(VideoLimits):
    """A video, as qwen-vl-utils and DashScope have it."""

    type: Literal["video"]
    video: Annotated[
        Annotated[_Url, Tag("<url>")] | Annotated[list[_Url], bounded(MAX_FRAMES, least=1), Tag("<frames>")],
        Discriminator(lambda value: "<frames>" if isinstance(value, list) else "<url>"),
    ]
    """One URL, or the URLs of the frames in order."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An uploaded file and what it is."""

    id: str
    path: str
    modality: Literal["image", "video"]


class Context(TypedDict):
    """What validators of a request may look up (pydantic's validation context)."""

    find_file: Callable[[str], StoredFile | None]
    """The uploaded file of an id, if the client has one."""


def _find_file(value: Any, info: ValidationInfo) -> StoredFile:
    if isinstance(value, StoredFile):
        return value  # looked up before
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "should be a valid string")
    context: Context | None = info.context
    file = None if context is None else context["find_file"](value)
    if file is None:
        raise PydanticCustomError("file_not_found", "No such File object: {id}", {"id": value[:100]})
    return file


FileId = Annotated[
    StoredFile,
    PlainValidator(_find_file, json_schema_input_type=str),
    PlainSerializer(lambda file: file.id, return_type=str),
]
"""The id of an uploaded file, which is looked up while the request is read."""


class FileSource(VideoLimits):
    """An image or a video, as an uploaded file or in the request itself."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["file_id"]}, {"required": ["file_data"]}]},
    )

    file_id: FileId | None = None
    """Id of an uploaded file."""
    file_data: Annotated[str, Field(pattern=r"^\s*[dD][aA][tT][aA]:")] | None = None
    """`data:` URL of the content."""
    filename: str | None = None
    """Accepted; the content says what the file is."""

    @model_validator(mode="after")
    def _one_source(self) -> "FileSource":
        if self.file_id is not None and self.file_data is not None:
            raise conflict("file_data", "cannot be combined with 'file_id'")
        if self.file_id is None and self.file_data is None:
            raise PydanticCustomError("missing", "is missing", {"param": "file_id"})
        return self


class FilePart(VideoLimits):
    """An image or a video, as OpenAI's API has files."""

    type: Literal["file"]
    file: FileSource


def tagged_by(field: str, known: str, *, default: str | None = None) -> Discriminator:
    """Tell the members of a union apart by a field; the tags are written so that no client's key can equal them.

    Args:
        field: its name.
        known: its values, for refusals.
        default: what counts where an object has a role and lacks the field; None: it must be there.
    """

    def read(value: Any) -> str | None:
        if not isinstance(value, dict):
            return f"<{getattr(value, field, None)}>"
        tag = value.get(field)
        return f"<{default if tag is None and 'role' in value else tag}>"

    return Discriminator(read, custom_error_type=f"unknown_{field}", custom_error_message=f"takes {known}")


AnyPart = Annotated[
    Annotated[TextPart, Tag("<text>")]
    | Annotated[ImageUrlPart, Tag("<image_url>")]
    | Annotated[ImagePart, Tag("<image>")]
    | Annotated[VideoUrlPart, Tag("<video_url>")]
    | Annotated[VideoPart, Tag("<video>")]
    | Annotated[FilePart, Tag("<file>")],
    tagged_by("type", "text, image_url, image, video_url, video, file"),
]
TEXT_OR_PARTS = Discriminator(lambda value: "<parts>" if isinstance(value, list) else "<string>")
Content = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[AnyPart], bounded(MAX_PARTS, least=1), Tag("<parts>")],
    TEXT_OR_PARTS,
]
TextContent = Annotated[
    Annotated[str, Tag("<string>")]
    | Annotated[
        list[Annotated[Annotated[TextPart, Tag("<text>")], tagged_by("type", "text")]],
        bounded(MAX_PARTS, least=1),
        Tag("<parts>"),
    ],
    TEXT_OR_PARTS,
]


class SystemMessage(RequestModel):
    """Instructions for the assistant; `developer` is another name for `system`."""

    role: Literal["system", "developer"]
    content: TextContent
    name: str | None = None


class UserMessage(RequestModel):
    """The user's text, images and videos."""

    role: Literal["user"]
    content: Content
    name: str | None = None


class RefusalPart(RequestModel):
    """What a model said in place of an answer; the model here does not see it."""

    type: Literal["refusal"]
    refusal: str


AssistantContent = Annotated[
    Annotated[str, Tag("<string>")]
    | Annotated[
        list[
            Annotated[
                Annotated[TextPart, Tag("<text>")]
                | Annotated[ImageUrlPart, Tag("<image_url>")]
                | Annotated[ImagePart, Tag("<image>")]
                | Annotated[VideoUrlPart, Tag("<video_url>")]
                | Annotated[VideoPart, Tag("<video>")]
                | Annotated[FilePart, Tag("<file>")]
                | Annotated[RefusalPart, Tag("<refusal>")],
                tagged_by("type", "text, image_url, image, video_url, video, file, refusal"),
            ]
        ],
        Field(min_length=1),
        Tag("<parts>"),
    ],
    TEXT_OR_PARTS,
]


class AssistantMessage(RequestModel):
    """An earlier answer, or the beginning of one to continue."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [name]} for name in ("content", "tool_calls", "refusal")]}
    )

    role: Literal["assistant"]
    content: AssistantContent | None = None
    """May be absent next to `tool_calls` or `refusal`."""
    name: str | None = None
    annotations: list[Any] = []
    """Accepted; the model does not see them."""
    tool_calls: Annotated[list[ToolCall], bounded(MAX_PARTS)] | None = None
    """Functions it called; a message of the role `tool` for each follows."""
    parsed: Any = None
    """Accepted; the official client sends it along with what it parsed."""
    refusal: str | None = None
    """Accepted; the model does not see it."""
    audio: Unsupported = None
    function_call: Unsupported = None

    @model_validator(mode="after")
    def _says_something(self) -> "AssistantMessage":
        if self.content is None and not self.tool_calls and self.refusal is None:
            raise PydanticCustomError("missing", "is missing", {"param": "content"})
        return self


class ToolMessage(RequestModel):
    """What a function returned."""

    role: Literal["tool"]
    content: Content
    """Text, images and videos."""
    tool_call_id: Annotated[str, Field(min_length=1)]
    """Id of the call, in the last message of the assistant."""
    name: str | None = None
    """Accepted; the call says which function it was."""


AnyMessage = Annotated[
    Annotated[SystemMessage, Tag("<system>")]
    | Annotated[SystemMessage, Tag("<developer>")]
    | Annotated[UserMessage, Tag("<user>")]
    | Annotated[AssistantMessage, Tag("<assistant>")]
    | Annotated[ToolMessage, Tag("<tool>")],
    tagged_by("role", "system, developer, user, assistant, tool"),
]
