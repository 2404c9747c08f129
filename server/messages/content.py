"""What the `messages` of the Messages API hold: Anthropic's blocks, with this server's videos and media limits."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from server.api.base_models import MAX_PARTS, RequestModel, bounded
from server.prompt.messages import TEXT_OR_PARTS, FileId, ImageLimits, VideoLimits, tagged_by
from server.tools import answered_calls
from server.tools.answered_calls import CallAnswered, CallMade, Step
from server.tools.protocol import FunctionName

_Id = Annotated[str, Field(min_length=1)]


class Block(RequestModel):
    """What all blocks share."""

    cache_control: dict[str, Any] | None = None
    """Accepted; the prefix cache works by itself."""


class TextBlock(Block):
    """A piece of text."""

    type: Literal["text"]
    text: str
    citations: list[Any] | None = None
    """Accepted, since answers have them; the model does not see them."""


class Base64Source(RequestModel):
    """Content in the request itself."""

    type: Literal["base64"]
    media_type: Annotated[str, Field(pattern=r"^[\w.+-]{1,60}/[\w.+-]{1,60}$")]
    """Such as `image/png`; the content decides."""
    data: Annotated[str, Field(min_length=1)]


class UrlSource(RequestModel):
    """Content behind an address."""

    type: Literal["url"]
    url: Annotated[str, Field(min_length=1)]
    """`data:` or `http(s):` URL; `file:` where the server allows it."""


class UploadedSource(RequestModel):
    """An uploaded file."""

    type: Literal["file"]
    file_id: FileId


Source = Annotated[
    Annotated[Base64Source, Tag("<base64>")]
    | Annotated[UrlSource, Tag("<url>")]
    | Annotated[UploadedSource, Tag("<file>")],
    tagged_by("type", "base64, url, file"),
]


class ImageBlock(Block, ImageLimits):
    """An image."""

    type: Literal["image"]
    source: Source


class VideoBlock(Block, VideoLimits):
    """A video; Anthropic's API has none, so this is the server's own."""

    type: Literal["video"]
    source: Source


class TextSource(RequestModel):
    """A document's text."""

    type: Literal["text"]
    data: str
    media_type: str | None = None
    """Accepted; the text is shown as it is."""


class DocumentBlock(Block):
    """A document of plain text; the model reads the text."""

    type: Literal["document"]
    source: Annotated[Annotated[TextSource, Tag("<text>")], tagged_by("type", "text")]
    title: str | None = None
    """Shown before the text."""
    context: str | None = None
    """Shown before the text."""
    citations: dict[str, Any] | None = None
    """Accepted; the model cites nothing."""


class SearchResultBlock(Block):
    """What a search found; the model reads the texts."""

    type: Literal["search_result"]
    source: str
    """Shown before the texts."""
    title: str
    """Shown before the texts."""
    content: Annotated[list[TextBlock], bounded(MAX_PARTS)]
    citations: dict[str, Any] | None = None
    """Accepted; the model cites nothing."""


_SHOWN = "text, image, video, document, search_result"
_Shown = (
    Annotated[TextBlock, Tag("<text>")]
    | Annotated[ImageBlock, Tag("<image>")]
    | Annotated[VideoBlock, Tag("<video>")]
    | Annotated[DocumentBlock, Tag("<document>")]
    | Annotated[SearchResultBlock, Tag("<search_result>")]
)
ShownBlock = TextBlock | ImageBlock | VideoBlock | DocumentBlock | SearchResultBlock


class ToolResultBlock(Block):
    """What a function returned."""

    type: Literal["tool_result"]
    tool_use_id: _Id
    """Of the call."""
    content: Annotated[
        Annotated[str, Tag("<string>")]
        | Annotated[list[Annotated[_Shown, tagged_by("type", _SHOWN)]], bounded(MAX_PARTS), Tag("<parts>")],
        TEXT_OR_PARTS,
    ] = ""
    """Text, images and videos."""
    is_error: bool = False
    """Accepted; the content says what went wrong."""


class ToolUseBlock(Block):
    """A call in an earlier answer; its result follows in the next message."""

    type: Literal["tool_use"]
    id: _Id
    """What the result refers to."""
    name: FunctionName
    input: dict[str, Any]
    caller: dict[str, Any] | None = None
    """Accepted, since answers of others have it."""


class ThinkingBlock(Block):
    """What a model thought before an earlier answer; the model here does not see it."""

    type: Literal["thinking"]
    thinking: str = ""
    signature: str | None = None


class RedactedThinkingBlock(Block):
    """Thoughts in a form nobody reads."""

    type: Literal["redacted_thinking"]
    data: str = ""


class UserTurn(RequestModel):
    """The user's text, images and videos, and results of functions."""

    role: Literal["user"]
    content: Annotated[
        Annotated[str, Tag("<string>")]
        | Annotated[
            list[
                Annotated[
                    _Shown | Annotated[ToolResultBlock, Tag("<tool_result>")],
                    tagged_by("type", f"{_SHOWN}, tool_result"),
                ]
            ],
            bounded(MAX_PARTS, least=1),
            Tag("<parts>"),
        ],
        TEXT_OR_PARTS,
    ]


class AssistantTurn(RequestModel):
    """An earlier answer; as the last turn, the beginning of one to continue."""

    role: Literal["assistant"]
    content: Annotated[
        Annotated[str, Tag("<string>")]
        | Annotated[
            list[
                Annotated[
                    Annotated[TextBlock, Tag("<text>")]
                    | Annotated[ToolUseBlock, Tag("<tool_use>")]
                    | Annotated[ThinkingBlock, Tag("<thinking>")]
                    | Annotated[RedactedThinkingBlock, Tag("<redacted_thinking>")],
                    tagged_by("type", "text, tool_use, thinking, redacted_thinking"),
                ]
            ],
            bounded(MAX_PARTS),
            Tag("<parts>"),
        ],
        TEXT_OR_PARTS,
    ]


TextBlocks = Annotated[
    Annotated[str, Tag("<string>")]
    | Annotated[
        list[Annotated[Annotated[TextBlock, Tag("<text>")], tagged_by("type", "text")]],
        bounded(MAX_PARTS),
        Tag("<parts>"),
    ],
    TEXT_OR_PARTS,
]


class SystemTurn(RequestModel):
    """Instructions for the assistant within the conversation."""

    role: Literal["system"]
    content: TextBlocks


AnyTurn = Annotated[
    Annotated[UserTurn, Tag("<user>")]
    | Annotated[AssistantTurn, Tag("<assistant>")]
    | Annotated[SystemTurn, Tag("<system>")],
    tagged_by("role", "user, assistant, system"),
]


def require_answered_calls(turns: Sequence[AnyTurn]) -> None:
    """Check that every call is answered in the next message before anything else, and every result has its call.

    Raises:
        PydanticCustomError: as `answered_calls.require_answered_calls`.
    """
    answered_calls.require_answered_calls(_steps(turns), "a block of the type 'tool_result'")


def _steps(turns: Sequence[AnyTurn]) -> Iterator[Step]:
    for number, turn in enumerate(turns):
        if isinstance(turn, AssistantTurn):
            yield None
        if isinstance(turn.content, str):
            yield None
            continue
        for index, block in enumerate(turn.content):
            place = f"messages[{number}].content[{index}]"
            match block:
                case ToolUseBlock():
                    yield CallMade(block.id, f"{place}.id", place)
                case ToolResultBlock():
                    yield CallAnswered(block.tool_use_id, f"{place}.tool_use_id")
                case _ if not isinstance(turn, AssistantTurn):  # an answer may say more after its calls
                    yield None
