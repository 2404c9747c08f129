"""Turns a request of the Responses API into the form all APIs share. Pure."""

import dataclasses
import uuid
from collections.abc import Sequence

from model_executor.processor.chatml import Message, Role
from model_executor.processor.tokenizer import MediaPlaceholder
from server.generation.grammar import JsonFormat, output_grammar
from server.generation.request import GenerationRequest
from server.media.types import MediaPart
from server.prompt.conversation import Conversation, earlier_call
from server.prompt.media_parts import inline_part, media_limits, stored_part, video_source
from server.prompt.messages import RefusalPart
from server.responses.input import (
    AnyInput,
    AssistantInput,
    FunctionCallOutput,
    InputFile,
    InputImage,
    InputVideo,
    OutputText,
    SystemInput,
    UserInput,
)
from server.responses.request import ResponseRequest, TextFormat
from server.responses.tools import FunctionCall, InputText, left_out, read_toolset

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def read_request(
    body: ResponseRequest, items: Sequence[tuple[str, AnyInput]], tenant: str, *, default_max_tokens: int | None = None
) -> GenerationRequest:
    """The request in the form all APIs share.

    Args:
        body: what the client sent.
        items: the whole conversation, each item with the request field it stands in.
        tenant: whose caches may be used.
        default_max_tokens: longest answer where the client names none; None for what the context leaves.

    Raises:
        BadRequestError: a file is neither an image nor a video, or a format or a function's parameters cannot be
            enforced.
    """
    tools = read_toolset(body.tools, body.tool_choice, parallel=body.parallel_tool_calls)
    relaxed = left_out(body.tools)
    conversation = _conversation(body.instructions, items)
    return GenerationRequest(
        id=f"resp_{uuid.uuid4().hex}",
        model=body.model,
        tenant=tenant,
        prompt=dataclasses.replace(
            conversation,
            media=body.limited(conversation.media),
            tools=tools,
            template_options=body.chat_template_kwargs,
        ),
        sampling=body,
        max_output_tokens=body.max_output_tokens,
        default_max_tokens=default_max_tokens,
        num_top_logprobs=(body.top_logprobs or 0) if body.reports_logprobs else None,
        grammar=output_grammar(_json_format(body.text.format if body.text else None), tools, relaxed=relaxed),
        relaxed=tuple(relaxed),
    )


def _json_format(text_format: TextFormat | None) -> JsonFormat | None:
    if text_format is None or text_format.type == "text":
        return None
    if text_format.schema_ is None:
        return JsonFormat(None, "text.format")
    return JsonFormat(text_format.schema_, "text.format.schema", text_format.strict)


def _conversation(instructions: str | None, items: Sequence[tuple[str, AnyInput]]) -> Conversation:
    turns = [] if instructions is None else [Message("system", (instructions,))]
    media: list[MediaPart] = []
    for place, item in items:
        match item:
            case FunctionCall():
                call = earlier_call(item.full_name, item.arguments)
                if turns and turns[-1].role == "assistant":  # the turn goes on
                    turns[-1] = dataclasses.replace(turns[-1], calls=(*turns[-1].calls, call))
                else:
                    turns.append(Message("assistant", (), (call,)))
            case FunctionCallOutput():
                turns.append(Message("tool", _parts(item.output, f"{place}.output", media)))
            case SystemInput() | UserInput() | AssistantInput():
                turns.append(Message(_ROLES[item.role], _parts(item.content, f"{place}.content", media)))
    return Conversation(tuple(turns), tuple(media), param="input")


def _parts(
    content: str | Sequence[InputText | InputImage | InputVideo | InputFile | OutputText | RefusalPart],
    param: str,
    media: list[MediaPart],
) -> tuple[str | MediaPlaceholder, ...]:
    """The parts of a message or a result; its media are added to `media`."""
    if isinstance(content, str):
        return (content,)
    parts: list[str | MediaPlaceholder] = []
    for index, part in enumerate(content):
        if isinstance(part, InputImage | InputVideo | InputFile):
            item = _media_part(part, f"{param}[{index}]")
            parts.append(MediaPlaceholder(len(media), item.modality))
            media.append(item)
        elif not isinstance(part, RefusalPart):
            parts.append(part.text)
    return tuple(parts)


def _media_part(part: InputImage | InputVideo | InputFile, param: str) -> MediaPart:
    limits = media_limits(part, param, detail=part.detail if isinstance(part, InputImage) else "auto")
    match part:
        case InputImage(image_url=str(url)):
            return MediaPart("image", url, f"{param}.image_url", *limits)
        case InputVideo(video_url=str(url)):
            return MediaPart("video", video_source(url), f"{param}.video_url", *limits)
        case InputVideo(video_url=list(urls)):
            return MediaPart("video", tuple(urls), f"{param}.video_url", *limits)
        case InputFile(file_data=str(url)):
            return inline_part(url, f"{param}.file_data", f"{param}.file_data", limits)
        case _:
            assert part.file_id is not None  # one source is there
            return stored_part(part.file_id, f"{param}.file_id", limits)
