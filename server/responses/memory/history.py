"""What a request builds on: items of earlier responses and conversations, and items it refers to by id."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic_core import PydanticCustomError

from server.core.errors import BadRequestError, NotFoundError
from server.responses.input import AnyInput, ItemReference, UserInput, require_answered_calls
from server.responses.memory.items import FindFile, read_again, stored_input
from server.responses.memory.store import Memory, StoredConversation, StoredItem, StoredResponse
from server.responses.request import ResponseRequest

PlacedItems = tuple[tuple[str, AnyInput], ...]
"""Items, each with the request field it stands in or that led to it."""


@dataclass(frozen=True, slots=True)
class History:
    """The conversation a request is about."""

    items: PlacedItems
    """What the model sees, in order."""
    stored: tuple[StoredItem, ...]
    """The same for the memory."""
    conversation: StoredConversation | None = None
    """To which the request's items and the answer are added."""


async def read_history(body: ResponseRequest, memory: Memory, tenant: str, find_file: FindFile) -> History:
    """The conversation a request is about, from the memory and from the request.

    Args:
        body: what the client sent.
        memory: of earlier requests.
        tenant: whose entries may be read.
        find_file: the uploaded file of an id.

    Raises:
        ClientError: it builds on something that is not there (any more), or calls and results do not fit together.
    """
    conversation = await _conversation(body, memory, tenant)
    before, source = await _before(body, conversation, memory, tenant)
    referred = await _referred(body, memory, tenant)
    # Texts may be long, data: URLs longer, and files are looked up.
    return await asyncio.to_thread(_joined, body, before, source, referred, conversation, find_file)


def _joined(
    body: ResponseRequest,
    before: tuple[StoredItem, ...],
    source: str,
    referred: Mapping[str, StoredItem],
    conversation: StoredConversation | None,
    find_file: FindFile,
) -> History:
    """What came before, and the request's own items behind it."""
    placed = [
        (place, read_again(item, place, find_file))
        for place, item in ((f"{source}[{index}]", item) for index, item in enumerate(before))
    ]
    kept = list(before)
    if isinstance(body.input, str):
        placed.append(("input", UserInput(role="user", content=body.input)))
        kept += stored_input(body.input)
    else:
        for index, item in enumerate(body.input):
            place = f"input[{index}]"
            if isinstance(item, ItemReference):
                placed.append((place, read_again(referred[item.id], place, find_file)))
                kept.append(referred[item.id])
            else:
                placed.append((place, item))
                kept += stored_input([item])
    _require_answered_calls(placed)
    return History(tuple(placed), tuple(kept), conversation)


async def _referred(body: ResponseRequest, memory: Memory, tenant: str) -> dict[str, StoredItem]:
    """The items a request refers to, by their ids."""
    found: dict[str, StoredItem] = {}
    for index, item in enumerate(() if isinstance(body.input, str) else body.input):
        if not isinstance(item, ItemReference):
            continue
        stored = await memory.find_item(tenant, item.id)
        if stored is None:
            raise NotFoundError(
                f"'input[{index}]' refers to the item {item.id[:100]!r}, which is not kept (any more).",
                param=f"input[{index}].id",
                code="item_not_found",
            )
        found[item.id] = stored
    return found


async def find_conversation(memory: Memory, tenant: str, conversation_id: str, *, param: str) -> StoredConversation:
    """A conversation of a key.

    Raises:
        NotFoundError: the key has none of this id; `param` is the client's field.
    """
    found = await memory.get(tenant, conversation_id)
    if not isinstance(found, StoredConversation):
        raise NotFoundError(
            f"Conversation with id {conversation_id[:100]!r} not found.", param=param, code="conversation_not_found"
        )
    return found


async def _conversation(body: ResponseRequest, memory: Memory, tenant: str) -> StoredConversation | None:
    if body.conversation_id is None:
        return None
    return await find_conversation(memory, tenant, body.conversation_id, param="conversation")


async def _before(
    body: ResponseRequest, conversation: StoredConversation | None, memory: Memory, tenant: str
) -> tuple[tuple[StoredItem, ...], str]:
    """The items that come before the request's own, and the field that led to them."""
    if conversation is not None:
        return conversation.items, "conversation"
    if body.previous_response_id is None:
        return (), ""
    found = await memory.get(tenant, body.previous_response_id)
    if not isinstance(found, StoredResponse):
        raise BadRequestError(
            f"Previous response with id {body.previous_response_id[:100]!r} not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return found.items, "previous_response_id"


def _require_answered_calls(placed: list[tuple[str, AnyInput]]) -> None:
    try:
        require_answered_calls(placed)
    except PydanticCustomError as error:
        param = (error.context or {}).get("param", "input")
        raise BadRequestError(f"'{param}' {error.message()}.", param=param, code="invalid_value") from error
