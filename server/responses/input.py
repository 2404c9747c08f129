"""What the `input` of `POST /v1/responses` holds: OpenAI's items, with this server's videos and media limits."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from server.api.base_models import MAX_FRAMES, MAX_PARTS, RequestModel, Unsupported, bounded, conflict
from server.prompt.messages import TEXT_OR_PARTS, FileId, ImageLimits, RefusalPart, VideoLimits, tagged_by
from server.responses.tools import FunctionCall, InputText, TextInput
from server.tools import answered_calls
from server.tools.answered_calls import CallAnswered, CallMade, Step

_Url = Annotated[str, Field(min_length=1)]
_Status = Literal["in_progress", "completed", "incomplete"]


def _require_one(model: RequestModel, first: str, second: str) -> None:
    names = [name for name in (first, second) if getattr(model, name) is not None]
    if len(names) == 2:
        raise conflict(second, f"cannot be combined with '{first}'")
    if not names:
        raise PydanticCustomError("missing", "is missing", {"param": first})


def _one_of(*names: str) -> ConfigDict:
    return ConfigDict(json_schema_extra={"anyOf": [{"required": [name]} for name in names]})


class InputImage(ImageLimits):
    """An image."""

    model_config = _one_of("image_url", "file_id")

    type: Literal["input_image"]
    image_url: _Url | None = None
    """`data:` or `http(s):` URL; `file:` where the server allows it."""
    file_id: FileId | None = None
    """Id of an uploaded image."""
    detail: Literal["auto", "low", "high", "original"] = "auto"
    """low: at most 64 tokens. The others: as the server is configured."""

    @model_validator(mode="after")
    def _agree(self) -> "InputImage":
        _require_one(self, "image_url", "file_id")
        if self.file_id is not None and self.file_id.modality != "image":
            raise conflict("file_id", "refers to a video; use 'input_video'")
        return self


class InputVideo(VideoLimits):
    """A video; OpenAI's API has none, so this is the server's own."""

    model_config = _one_of("video_url", "file_id")

    type: Literal["input_video"]
    video_url: (
        Annotated[
            Annotated[_Url, Tag("<url>")] | Annotated[list[_Url], bounded(MAX_FRAMES, least=1), Tag("<frames>")],
            Discriminator(lambda value: "<frames>" if isinstance(value, list) else "<url>"),
        ]
        | None
    ) = None
    """One URL, or the URLs of the frames in order."""
    file_id: FileId | None = None
    """Id of an uploaded video."""

    @model_validator(mode="after")
    def _agree(self) -> "InputVideo":
        _require_one(self, "video_url", "file_id")
        if self.file_id is not None and self.file_id.modality != "video":
            raise conflict("file_id", "refers to an image; use 'input_image'")
        return self


class InputFile(VideoLimits):
    """An image or a video, as OpenAI's API has files."""

    model_config = _one_of("file_id", "file_data")

    type: Literal["input_file"]
    file_id: FileId | None = None
    """Id of an uploaded file."""
    file_data: Annotated[str, Field(pattern=r"^\s*[dD][aA][tT][aA]:")] | None = None
    """`data:` URL of the content."""
    filename: str | None = None
    """Accepted; the content says what the file is."""
    file_url: Unsupported = None
    detail: Unsupported = None

    @model_validator(mode="after")
    def _agree(self) -> "InputFile":
        _require_one(self, "file_id", "file_data")
        return self


class OutputText(RequestModel):
    """The assistant's text, as an answer had it."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] = []
    """Accepted; the model does not see them."""
    logprobs: list[Any] = []
    """Accepted, since answers have it; the model does not see them."""


_InputPart = Annotated[
    Annotated[InputText, Tag("<input_text>")]
    | Annotated[InputImage, Tag("<input_image>")]
    | Annotated[InputVideo, Tag("<input_video>")]
    | Annotated[InputFile, Tag("<input_file>")],
    tagged_by("type", "input_text, input_image, input_video, input_file"),
]
_OutputPart = Annotated[
    Annotated[OutputText, Tag("<output_text>")] | Annotated[RefusalPart, Tag("<refusal>")],
    tagged_by("type", "output_text, refusal"),
]


class InputMessage(RequestModel):
    """What all messages share."""

    type: Literal["message"] = "message"
    id: str | None = None
    """Of the item, where an answer had it."""
    status: _Status | None = None
    """Accepted, since answers have it."""


class SystemInput(InputMessage):
    """Instructions for the assistant; `developer` is another name for `system`."""

    role: Literal["system", "developer"]
    content: Annotated[
        Annotated[str, Tag("<string>")] | Annotated[list[TextInput], bounded(MAX_PARTS, least=1), Tag("<parts>")],
        TEXT_OR_PARTS,
    ]


class UserInput(InputMessage):
    """The user's text, images and videos."""

    role: Literal["user"]
    content: Annotated[
        Annotated[str, Tag("<string>")] | Annotated[list[_InputPart], bounded(MAX_PARTS, least=1), Tag("<parts>")],
        TEXT_OR_PARTS,
    ]


class AssistantInput(InputMessage):
    """An earlier answer."""

    role: Literal["assistant"]
    content: Annotated[
        Annotated[str, Tag("<string>")] | Annotated[list[_OutputPart], bounded(MAX_PARTS, least=1), Tag("<parts>")],
        TEXT_OR_PARTS,
    ]
    phase: Literal["commentary", "final_answer"] | None = None
    """Accepted; the model has no phases."""


class FunctionCallOutput(RequestModel):
    """What a function returned."""

    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(min_length=1)]
    """Of the call."""
    output: Annotated[
        Annotated[str, Tag("<string>")] | Annotated[list[_InputPart], bounded(MAX_PARTS, least=1), Tag("<parts>")],
        TEXT_OR_PARTS,
    ]
    """Text, images and videos."""
    id: str | None = None
    """Of the item."""
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    """Accepted, since answers have it."""


class Reasoning(RequestModel):
    """What a model thought before an earlier answer; the model here does not see it."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[Any] = []
    content: list[Any] = []
    encrypted_content: str | None = None
    status: _Status | None = None


class ItemReference(RequestModel):
    """An item of an earlier response, or of a conversation, by its id."""

    type: Literal["item_reference"]
    id: Annotated[str, Field(min_length=1)]


AnyInput = Annotated[
    Annotated[
        Annotated[SystemInput, Tag("<system>")]
        | Annotated[SystemInput, Tag("<developer>")]
        | Annotated[UserInput, Tag("<user>")]
        | Annotated[AssistantInput, Tag("<assistant>")],
        tagged_by("role", "system, developer, user, assistant"),
        Tag("<message>"),
    ]
    | Annotated[FunctionCall, Tag("<function_call>")]
    | Annotated[FunctionCallOutput, Tag("<function_call_output>")]
    | Annotated[Reasoning, Tag("<reasoning>")]
    | Annotated[ItemReference, Tag("<item_reference>")],
    tagged_by("type", "message, function_call, function_call_output, reasoning, item_reference", default="message"),
]


def require_answered_calls(items: Sequence[tuple[str, AnyInput]]) -> None:
    """Check that every call is answered before anything else follows, and every result belongs to a call.

    Args:
        items: each with the request field it stands in.

    Raises:
        PydanticCustomError: as `answered_calls.require_answered_calls`.
    """
    answered_calls.require_answered_calls(_steps(items), "an item of the type 'function_call_output'")


def _steps(items: Sequence[tuple[str, AnyInput]]) -> Iterator[Step]:
    for place, item in items:
        match item:
            case Reasoning():
                pass
            case FunctionCall():
                yield CallMade(item.call_id, f"{place}.call_id", place)
            case FunctionCallOutput():
                yield CallAnswered(item.call_id, f"{place}.call_id")
            case _:
                yield None
