"""`/v1/conversations`: items that a client keeps under an id, as sessions of OpenAI's agents do."""

import dataclasses
import time
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from server.api.dependencies import Tenant, json_body
from server.api.openapi import Schemas, errors, json_request
from server.api.openapi import query as query_parameters
from server.core.errors import TooLargeError
from server.responses.input import ItemReference
from server.responses.memory import wire
from server.responses.memory.dependencies import KeptConversation, MemoryDep, no_item, page_of, query_of
from server.responses.memory.items import stored_input
from server.responses.memory.store import Memory, StoredConversation, StoredItem

router = APIRouter(prefix="/v1/conversations")
SCHEMAS = Schemas(read=[wire.NewConversation, wire.NewItems, wire.ConversationUpdate])


@router.post(
    "",
    summary="Keep a conversation",
    operation_id="createConversation",
    openapi_extra=json_request(wire.NewConversation),
    responses=errors(400, 401, 404, 413, 429, 500),
)
async def create_conversation(
    body: Annotated[wire.NewConversation, Depends(json_body(wire.NewConversation))], memory: MemoryDep, tenant: Tenant
) -> wire.Conversation:
    """Keep items under an id, until they expire or newer entries of the key need the room."""
    items = await _items(body.items, memory, tenant)
    made = StoredConversation(f"conv_{uuid.uuid4().hex}", int(time.time()), body.metadata, tuple(items))
    await _put(made, memory, tenant)
    return _object(made)


@router.get(
    "/{conversation_id}",
    summary="Retrieve a conversation",
    operation_id="retrieveConversation",
    responses=errors(401, 404, 500),
)
async def retrieve_conversation(conversation: KeptConversation) -> wire.Conversation:
    """A conversation without its items."""
    return _object(conversation)


@router.post(
    "/{conversation_id}",
    summary="Change a conversation",
    operation_id="updateConversation",
    openapi_extra=json_request(wire.ConversationUpdate),
    responses=errors(400, 401, 404, 413, 429, 500),
)
async def update_conversation(
    body: Annotated[wire.ConversationUpdate, Depends(json_body(wire.ConversationUpdate))],
    conversation: KeptConversation,
    memory: MemoryDep,
    tenant: Tenant,
) -> wire.Conversation:
    """Replace a conversation's metadata."""
    changed = dataclasses.replace(conversation, metadata=body.metadata)
    await _put(changed, memory, tenant)
    return _object(changed)


@router.delete(
    "/{conversation_id}",
    summary="Delete a conversation",
    operation_id="deleteConversation",
    responses=errors(401, 404, 500),
)
async def delete_conversation(
    conversation: KeptConversation, memory: MemoryDep, tenant: Tenant
) -> wire.ConversationDeleted:
    """Forget a conversation."""
    await memory.delete(tenant, conversation.id)
    return wire.ConversationDeleted(id=conversation.id)


@router.get(
    "/{conversation_id}/items",
    summary="List a conversation's items",
    operation_id="listConversationItems",
    openapi_extra=query_parameters(wire.ItemQuery),
    responses=errors(400, 401, 404, 500),
)
async def list_items(
    query: Annotated[wire.ItemQuery, Depends(query_of(wire.ItemQuery))], conversation: KeptConversation
) -> wire.ItemList:
    """A page of items; the last first by default."""
    return page_of(conversation.items, query)


@router.post(
    "/{conversation_id}/items",
    summary="Add items to a conversation",
    operation_id="createConversationItems",
    openapi_extra=json_request(wire.NewItems),
    responses=errors(400, 401, 404, 413, 429, 500),
)
async def create_items(
    body: Annotated[wire.NewItems, Depends(json_body(wire.NewItems))],
    conversation: KeptConversation,
    memory: MemoryDep,
    tenant: Tenant,
) -> wire.ItemList:
    """Add items at the end of a conversation."""
    added = await _items(body.items, memory, tenant)
    known = {item.id for item in added}
    kept = [item for item in conversation.items if item.id not in known]
    await _put(dataclasses.replace(conversation, items=(*kept, *added)), memory, tenant)
    return page_of(added, wire.ItemQuery(order="asc", limit=1000))


@router.get(
    "/{conversation_id}/items/{item_id}",
    summary="Retrieve an item",
    operation_id="retrieveConversationItem",
    responses=errors(401, 404, 500),
)
async def retrieve_item(conversation: KeptConversation, item_id: str) -> dict[str, Any]:
    """An item of a conversation."""
    return _find(conversation, item_id).fields


@router.delete(
    "/{conversation_id}/items/{item_id}",
    summary="Remove an item",
    operation_id="deleteConversationItem",
    responses=errors(401, 404, 500),
)
async def delete_item(
    conversation: KeptConversation, item_id: str, memory: MemoryDep, tenant: Tenant
) -> wire.Conversation:
    """Remove an item from a conversation."""
    removed = _find(conversation, item_id)
    rest = tuple(item for item in conversation.items if item.id != removed.id)
    await _put(dataclasses.replace(conversation, items=rest), memory, tenant)
    return _object(conversation)


async def _put(conversation: StoredConversation, memory: Memory, tenant: str) -> None:
    """Keep a conversation.

    Raises:
        TooLargeError: it exceeds all the room of a key, or nothing is kept at all.
    """
    if not await memory.put(tenant, conversation):
        raise TooLargeError(
            "The conversation exceeds what this server keeps of one key (responses.max_key_bytes); keep less in it.",
            code="conversation_too_large",
        )


async def _items(sent: list[Any], memory: Memory, tenant: str) -> list[StoredItem]:
    """Items of a request for the memory; what it refers to is found there."""
    items: list[StoredItem] = []
    for index, item in enumerate(sent):
        if not isinstance(item, ItemReference):
            items += stored_input([item])
            continue
        found = await memory.find_item(tenant, item.id)
        if found is None:
            raise no_item(item.id, param=f"items[{index}].id")
        items.append(found)
    return list({item.id: item for item in items}.values())


def _find(conversation: StoredConversation, item_id: str) -> StoredItem:
    for item in conversation.items:
        if item.id == item_id:
            return item
    raise no_item(item_id, param="item_id")


def _object(conversation: StoredConversation) -> wire.Conversation:
    return wire.Conversation(
        id=conversation.id, created_at=conversation.created_at, metadata=dict(conversation.metadata)
    )
