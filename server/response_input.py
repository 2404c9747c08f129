"""A request of the Responses API as a chat request, and the names of its fields there. Pure.

The chat use case knows nothing of it: what it refuses, it refuses under the names of the chat request, and `Asked`
turns those into the ones the client wrote.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from model_executor.geometry import TOKEN_PX
from server.conversation import LOW_DETAIL_TOKENS
from server.errors import ApiError
from server.protocol import content as chat
from server.protocol.chat_request import ChatCompletionRequest
from server.protocol.response_format import NamedSchema, ResponseFormat
from server.protocol.responses_input import (
    AnyInput,
    AssistantInput,
    InputFile,
    InputImage,
    InputText,
    InputVideo,
    OutputText,
    SystemInput,
)
from server.protocol.responses_request import ResponseRequest, TextFormat
from server.protocol.sampling import StreamOptions

_FIELD = re.compile(r"'(\w[\w.$\[\]]*)'")


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, in the chat use case's terms."""

    request: ChatCompletionRequest
    places: dict[str, str] = field(default_factory=dict)
    """Of fields of `request`: the field of the client's request; a field inside one of them is inside that."""

    def place(self, name: str) -> str:
        """The client's name of a field of `request`."""
        for known in sorted(self.places, key=len, reverse=True):
            if name == known or (name.startswith(known) and name[len(known)] in ".["):
                return self.places[known] + name[len(known) :]
        return name

    def rename(self, error: ApiError) -> None:
        """Make an error about `request` one about the client's request."""
        if error.param is not None:
            error.param = self.place(error.param)
        error.message = _FIELD.sub(lambda match: f"'{self.place(match[1])}'", error.message)


def read_request(request: ResponseRequest) -> Asked:
    """The chat request that asks the same, as a stream with token counts."""
    places = {
        "messages": "input",
        "response_format": "text.format",
        "response_format.json_schema": "text.format",
        "max_completion_tokens": "max_output_tokens",
    }
    messages: list[chat.AnyMessage] = []
    if request.instructions is not None:
        messages.append(chat.SystemMessage(role="system", content=request.instructions))
    if isinstance(request.input, str):
        messages.append(chat.UserMessage(role="user", content=request.input))
    else:
        for index, item in enumerate(request.input):
            there, here = f"messages[{len(messages)}]", f"input[{index}]"
            places[there] = here
            messages.append(_message(item, f"{there}.content", f"{here}.content", places))
    asked = ChatCompletionRequest(
        model=request.model,
        messages=messages,
        max_completion_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        logprobs=request.reports_logprobs,
        top_logprobs=request.top_logprobs,
        response_format=_response_format(request.text.format if request.text else None),
        stream=True,
        stream_options=StreamOptions(include_usage=True),
    )
    return Asked(asked, places)


def _message(item: AnyInput, there: str, here: str, places: dict[str, str]) -> chat.AnyMessage:
    """Args: item: a message. there, here: names of its content. places: gets what is named otherwise inside."""
    content: Any = item.content
    if not isinstance(content, str):
        content = [
            _part(part, f"{there}[{index}]", f"{here}[{index}]", places) for index, part in enumerate(item.content)
        ]
    match item:
        case SystemInput(role=role):
            return chat.SystemMessage(role=role, content=content)
        case AssistantInput():
            return chat.AssistantMessage(role="assistant", content=content)
        case _:
            return chat.UserMessage(role="user", content=content)


def _part(part: Any, there: str, here: str, places: dict[str, str]) -> chat.AnyPart:
    match part:
        case InputText(text=text) | OutputText(text=text):
            return chat.TextPart(type="text", text=text)
        case InputImage(image_url=str(url)):
            return chat.ImageUrlPart(
                type="image_url",
                image_url=chat.ImageUrl(url=url, detail=part.detail),
                **_limits(part, chat.ImageLimits),
            )
        case InputVideo(video_url=str() | list() as source):
            places[f"{there}.video"] = f"{here}.video_url"
            return chat.VideoPart(type="video", video=source, **_limits(part, chat.VideoLimits))
        case InputImage() | InputVideo() | InputFile():
            return _file(part, there, here, places)
        case _:
            raise AssertionError(f"{here} is of no known type")


def _file(part: InputImage | InputVideo | InputFile, there: str, here: str, places: dict[str, str]) -> chat.FilePart:
    data = part.file_data if isinstance(part, InputFile) else None
    name = "file_id" if data is None else "file_data"
    places |= {f"{there}.file": f"{here}.{name}", f"{there}.file.{name}": f"{here}.{name}"}
    limits = _limits(part, chat.ImageLimits if isinstance(part, InputImage) else chat.VideoLimits)
    if isinstance(part, InputImage) and part.detail == "low":
        cap = LOW_DETAIL_TOKENS * TOKEN_PX
        limits["max_pixels"] = min(limits.get("max_pixels", cap), cap)
    return chat.FilePart(type="file", file=chat.FileSource(file_id=part.file_id, file_data=data), **limits)


def _limits(part: chat.ImageLimits, kind: type[chat.ImageLimits]) -> dict[str, Any]:
    """The limits a part was given, by name."""
    given = {name: getattr(part, name) for name in kind.model_fields}
    return {name: value for name, value in given.items() if value is not None}


def _response_format(wanted: TextFormat | None) -> ResponseFormat | None:
    if wanted is None or wanted.type != "json_schema":
        return None if wanted is None else ResponseFormat(type=wanted.type)
    schema = NamedSchema.model_validate({"name": wanted.name, "schema": wanted.schema_})
    return ResponseFormat(type="json_schema", json_schema=schema)
