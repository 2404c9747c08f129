"""A request of the Responses API as a chat request, and the names of its fields there. Pure.

The chat use case knows nothing of it: what it refuses, it refuses under the names of the chat request, and `Places`
turns those into the ones the client wrote.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from model_executor.processor.geometry import TOKEN_PX
from server.api.validation import refusal
from server.chat.request import ChatCompletionRequest
from server.core.errors import ApiError
from server.generation.sampling_fields import StreamOptions
from server.prompt import messages as chat
from server.prompt.conversation import LOW_DETAIL_TOKENS
from server.responses.input import (
    AssistantInput,
    InputFile,
    InputImage,
    InputMessage,
    InputVideo,
    OutputText,
    SystemInput,
    UserInput,
)
from server.responses.request import ResponseRequest, TextFormat
from server.responses.tools import (
    AllowedFunctions,
    ChosenFunction,
    FunctionCall,
    FunctionCallOutput,
    FunctionChoice,
    InputText,
)
from server.structured_output.protocol import NamedSchema, ResponseFormat
from server.tools import protocol

_FIELD = re.compile(r"'(\w[\w.$\[\]]*)'")


@dataclass(frozen=True, slots=True)
class Places:
    """Which field of the client's request each field of the chat request comes from."""

    known: dict[str, str] = field(default_factory=dict)
    """By field of the chat request; what is inside of one is inside of the other."""

    def of(self, name: str) -> str:
        """The client's name of a field of the chat request."""
        for known in sorted(self.known, key=len, reverse=True):
            if name == known or (name.startswith(known) and name[len(known)] in ".["):
                return self.known[known] + name[len(known) :]
        return name

    def rename(self, error: ApiError) -> None:
        """Make an error about the chat request one about the client's."""
        if error.param is not None:
            error.param = self.of(error.param)
        error.message = _FIELD.sub(lambda match: f"'{self.of(match[1])}'", error.message)


def read_request(request: ResponseRequest) -> tuple[ChatCompletionRequest, Places]:
    """The chat request that asks the same, as a stream with token counts.

    Raises:
        ClientError: fields that are fine one by one do not go together.
    """
    places = Places(
        {
            "messages": "input",
            "response_format": "text.format",
            "response_format.json_schema": "text.format",
            "max_completion_tokens": "max_output_tokens",
            "tool_choice.function": "tool_choice",
            "tool_choice.allowed_tools": "tool_choice",
        }
    )
    try:
        asked = ChatCompletionRequest(
            model=request.model,
            messages=_messages(request, places.known),
            max_completion_tokens=request.max_output_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            logprobs=request.reports_logprobs,
            top_logprobs=request.top_logprobs,
            response_format=_response_format(request.text.format if request.text else None),
            stream=True,
            stream_options=StreamOptions(include_usage=True),
            **_tool_use(request, places.known),
        )
    except ValidationError as error:
        refused = refusal(error)
        places.rename(refused)
        raise refused from error
    return asked, places


def _messages(request: ResponseRequest, places: dict[str, str]) -> list[chat.AnyMessage]:
    """The instructions and the input as messages of a chat; `places` gets what is named otherwise there."""
    messages: list[chat.AnyMessage] = []
    if request.instructions is not None:
        messages.append(chat.SystemMessage(role="system", content=request.instructions))
    if isinstance(request.input, str):
        return [*messages, chat.UserMessage(role="user", content=request.input)]
    for index, item in enumerate(request.input):
        there, here = f"messages[{len(messages)}]", f"input[{index}]"
        match item:
            case FunctionCall():
                messages = _with_call(messages, item, here, places)
            case FunctionCallOutput():
                places[there] = here
                output: Any = item.output
                if not isinstance(output, str):
                    output = [chat.TextPart(type="text", text=part.text) for part in output]
                messages.append(chat.ToolMessage(role="tool", tool_call_id=item.call_id, content=output))
            case _:
                places[there] = here
                messages.append(_message(item, f"{there}.content", f"{here}.content", places))
    return messages


def _with_call(
    messages: list[chat.AnyMessage], call: FunctionCall, here: str, places: dict[str, str]
) -> list[chat.AnyMessage]:
    """The messages with a call, in the assistant's turn that is going on or in a new one."""
    function = protocol.CalledFunction(name=call.name, arguments=call.arguments)
    calls = [protocol.ToolCall(id=call.call_id, type="function", function=function)]
    content = None
    if messages and isinstance(last := messages[-1], chat.AssistantMessage):
        messages, content = messages[:-1], last.content
        calls = [*(last.tool_calls or []), *calls]
    else:
        places[f"messages[{len(messages)}]"] = here
    places[f"messages[{len(messages)}].tool_calls[{len(calls) - 1}]"] = here
    return [*messages, chat.AssistantMessage(role="assistant", content=content, tool_calls=calls)]


def _tool_use(request: ResponseRequest, places: dict[str, str]) -> dict[str, Any]:
    """The fields of tools; none where there are no tools, since chat takes them together only."""
    if not request.tools:
        return {}
    listed = []
    for index, tool in enumerate(request.tools):
        places[f"tools[{index}].function"] = f"tools[{index}]"
        function = protocol.Function(
            name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict
        )
        listed.append(protocol.Tool(type="function", function=function))
    return {
        "tools": listed,
        "tool_choice": _tool_choice(request.tool_choice, places),
        "parallel_tool_calls": request.parallel_tool_calls,
    }


def _tool_choice(choice: FunctionChoice | None, places: dict[str, str]) -> protocol.ToolChoice | None:
    match choice:
        case ChosenFunction():
            return _named(choice)
        case AllowedFunctions():
            for index in range(len(choice.tools)):
                places[f"tool_choice.allowed_tools.tools[{index}].function"] = f"tool_choice.tools[{index}]"
            named = [_named(chosen) for chosen in choice.tools]
            return protocol.AllowedToolsChoice(
                type="allowed_tools", allowed_tools=protocol.AllowedTools(mode=choice.mode, tools=named)
            )
        case _:
            return choice


def _named(chosen: ChosenFunction) -> protocol.NamedTool:
    return protocol.NamedTool(type="function", function=protocol.FunctionReference(name=chosen.name))


def _message(item: InputMessage, there: str, here: str, places: dict[str, str]) -> chat.AnyMessage:
    """One message; its content is called `there` in the chat and `here` by the client, which `places` gets."""
    match item:
        case SystemInput(role=role):
            return chat.SystemMessage(role=role, content=_content(item.content, there, here, places))
        case AssistantInput():
            return chat.AssistantMessage(role="assistant", content=_content(item.content, there, here, places))
        case UserInput():
            return chat.UserMessage(role="user", content=_content(item.content, there, here, places))
        case _:
            raise AssertionError(f"{here} is of no known role")


def _content(content: str | Sequence[Any], there: str, here: str, places: dict[str, str]) -> Any:
    if isinstance(content, str):
        return content
    return [_part(part, f"{there}[{index}]", f"{here}[{index}]", places) for index, part in enumerate(content)]


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
