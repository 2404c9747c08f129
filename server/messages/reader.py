"""Turns a request of the Messages API into the form all APIs share. Pure."""

import uuid
from collections.abc import Sequence

from model_executor.processor.chatml import Call, Message
from model_executor.processor.tokenizer import MediaPlaceholder
from server.core.errors import BadRequestError
from server.generation.grammar import JsonFormat, output_grammar
from server.generation.request import GenerationRequest
from server.generation.sampling_fields import SamplingFields
from server.media.types import LocalFile, MediaPart
from server.messages.content import (
    AnyTurn,
    AssistantTurn,
    Base64Source,
    DocumentBlock,
    ImageBlock,
    SearchResultBlock,
    ShownBlock,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    UploadedSource,
    UserTurn,
    VideoBlock,
)
from server.messages.request import CountTokensRequest, MessagesRequest
from server.messages.tools import left_out, read_toolset
from server.prompt.conversation import Conversation
from server.prompt.media_parts import media_limits, video_source

Part = str | MediaPlaceholder


def read_request(body: MessagesRequest, tenant: str) -> GenerationRequest:
    """The request in the form all APIs share.

    Clients of this API must name a longest answer and do not know this context, so it is lowered to what fits.

    Args:
        body: what the client sent.
        tenant: whose caches may be used.

    Raises:
        BadRequestError: an uploaded file is of another kind than its block, or a format or a function's parameters
            cannot be enforced.
    """
    relaxed = left_out(body.tools)
    conversation = read_conversation(body)
    form = None if body.form is None else JsonFormat(body.form[0].schema_, f"{body.form[1]}.schema")
    return GenerationRequest(
        id=f"msg_{uuid.uuid4().hex}",
        model=body.model,
        tenant=tenant,
        prompt=conversation,
        sampling=_sampling(body),
        max_output_tokens=None,
        default_max_tokens=body.max_tokens,
        grammar=output_grammar(form, conversation.tools, relaxed=relaxed),
        relaxed=tuple(relaxed),
    )


def _sampling(body: MessagesRequest) -> SamplingFields:
    """The sampling fields that are sent; their ranges are checked."""
    sent = {name: getattr(body, name) for name in ("temperature", "top_p", "top_k")}
    given = {name: value for name, value in sent.items() if value is not None}
    return SamplingFields.model_construct(_fields_set=set(given), **given, stop=body.stop_sequences)


def read_conversation(body: CountTokensRequest) -> Conversation:
    """Turns, media and functions of a request.

    Raises:
        BadRequestError: an uploaded file is of another kind than its block.
    """
    media: list[MediaPart] = []
    turns = [] if body.system is None else [Message("system", tuple(_texts(body.system)))]
    for number, turn in enumerate(body.messages):
        turns += _turns(turn, f"messages[{number}]", media)
    continues = body.messages[-1].role == "assistant"
    return Conversation(
        tuple(turns),
        tuple(media),
        tools=read_toolset(body.tools, body.tool_choice),
        add_generation_prompt=not continues,
        continue_final_message=continues,
    )


def _turns(turn: AnyTurn, place: str, media: list[MediaPart]) -> list[Message]:
    """A message as turns: results of functions are turns of their own."""
    if isinstance(turn.content, str):
        return [Message(turn.role, (turn.content,))]
    if isinstance(turn, AssistantTurn):
        texts = tuple(block.text for block in turn.content if isinstance(block, TextBlock))
        calls = tuple(Call(block.name, block.input) for block in turn.content if isinstance(block, ToolUseBlock))
        return [Message("assistant", texts, calls)]
    if not isinstance(turn, UserTurn):
        return [Message("system", tuple(_texts(turn.content)))]
    turns: list[Message] = []
    said: list[Part] = []
    for index, block in enumerate(turn.content):
        param = f"{place}.content[{index}]"
        if not isinstance(block, ToolResultBlock):
            said += _parts(block, param, media)
            continue
        turns.append(Message("tool", tuple(_result(block, param, media))))
    return [*turns, Message("user", tuple(said))] if said or not turns else turns


def _texts(content: str | Sequence[TextBlock]) -> list[str]:
    return [content] if isinstance(content, str) else [block.text for block in content]


def _result(block: ToolResultBlock, param: str, media: list[MediaPart]) -> list[Part]:
    if isinstance(block.content, str):
        return [block.content]
    parts: list[Part] = []
    for index, shown in enumerate(block.content):
        parts += _parts(shown, f"{param}.content[{index}]", media)
    return parts


def _parts(block: ShownBlock, param: str, media: list[MediaPart]) -> list[Part]:
    """What the model sees of a block; its media are added to `media`."""
    match block:
        case TextBlock(text=text):
            return [text]
        case DocumentBlock():
            heads = [text for text in (block.title, block.context) if text]
            return ["\n".join([*heads, block.source.data])]
        case SearchResultBlock():
            return ["\n".join([block.title, block.source, *(text.text for text in block.content)])]
        case ImageBlock() | VideoBlock():
            item = _media_part(block, param)
            media.append(item)
            return [MediaPlaceholder(len(media) - 1, item.modality)]


def _media_part(block: ImageBlock | VideoBlock, param: str) -> MediaPart:
    limits = media_limits(block, param)
    match block.source:
        case UploadedSource(file_id=file):
            if file.modality != block.type:
                raise BadRequestError(
                    f"'{param}.source.file_id' refers to a file of the type '{file.modality}'.",
                    param=f"{param}.source.file_id",
                    code="invalid_value",
                )
            return MediaPart(block.type, LocalFile(file.path), f"{param}.source", *limits)
        case Base64Source(media_type=media_type, data=data):
            url = f"data:{media_type};base64,{data}"
        case source:
            url = source.url
    return MediaPart(block.type, video_source(url) if block.type == "video" else url, f"{param}.source", *limits)
