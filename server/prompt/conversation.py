"""A conversation as every API hands it on: turns to render and media to prepare; read here from Chat's messages. Pure.

Media are numbered from 0 in the order they stand, over the whole conversation; both turns and media use that number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from model_executor.processor.chatml import Call, Message, Role
from model_executor.processor.tokenizer import MediaPlaceholder
from server.media.types import MediaPart
from server.prompt.media_parts import media_part
from server.prompt.messages import AnyMessage, AssistantMessage, RefusalPart, TextPart
from server.tools.toolset import Toolset

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns and media, and how the prompt renders them."""

    turns: tuple[Message, ...]
    media: tuple[MediaPart, ...]
    """By `MediaPlaceholder.index`."""
    param: str = "messages"
    """The request field it stands in, for errors."""
    tools: Toolset | None = None
    """Functions the model may call."""
    add_generation_prompt: bool = True
    """End with the opening of an assistant's turn."""
    continue_final_message: bool = False
    """Leave the last turn open, for the model to continue; excludes the former."""
    add_vision_id: bool = False
    """Number the media in the prompt: `Picture 1: `."""
    template_options: Mapping[str, Any] = field(default_factory=dict)
    """Further variables of the model's chat template, by name; those it does not read count for nothing."""


def read_conversation(messages: Sequence[AnyMessage]) -> Conversation:
    """Turns and media of a Chat request's messages.

    Raises:
        BadRequestError: a limit stands both next to a URL and inside its object, or a file's data are neither an
            image nor a video.
    """
    media: list[MediaPart] = []
    turns: list[Message] = []
    for number, message in enumerate(messages):
        contents = [message.content] if isinstance(message.content, str) else message.content or []
        parts: list[str | MediaPlaceholder] = []
        for index, content in enumerate(contents):
            if isinstance(content, str):
                parts.append(content)
            elif isinstance(content, TextPart):
                parts.append(content.text)
            elif not isinstance(content, RefusalPart):
                item = media_part(content, f"messages[{number}].content[{index}]")
                parts.append(MediaPlaceholder(len(media), item.modality))
                media.append(item)
        made = (message.tool_calls if isinstance(message, AssistantMessage) else None) or []
        calls = tuple(earlier_call(call.function.name, call.function.arguments) for call in made)
        turns.append(Message(_ROLES[message.role], tuple(parts), calls))
    return Conversation(tuple(turns), tuple(media))


def earlier_call(name: str, arguments: str) -> Call:
    """A call of an earlier answer; arguments that are no JSON object are rendered as they were written."""
    try:
        parsed = from_json(arguments, allow_inf_nan=False)
    except ValueError:
        parsed = None
    return Call(name, parsed if isinstance(parsed, dict) else arguments)
