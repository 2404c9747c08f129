"""What routes ask FastAPI for: the memory, and a key's entries in it; pages of items."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from server.api.validation import refusal
from server.core.errors import NotFoundError
from server.responses.memory.history import find_conversation
from server.responses.memory.items import FindFile
from server.responses.memory.store import Memory, StoredConversation, StoredItem, StoredResponse
from server.responses.memory.wire import ItemList, ItemQuery

Query = TypeVar("Query", bound=BaseModel)


async def _memory(request: Request) -> Memory:
    memory: Memory = request.app.state.memory
    return memory


async def _find_file(request: Request) -> FindFile:
    loop = asyncio.get_running_loop()
    return partial(request.app.state.find_file, tenant=request.state.tenant, loop=loop)


MemoryDep = Annotated[Memory, Depends(_memory)]
FindFileDep = Annotated[FindFile, Depends(_find_file)]


async def _response(response_id: str, memory: MemoryDep, request: Request) -> StoredResponse:
    found = await memory.get(request.state.tenant, response_id)
    if not isinstance(found, StoredResponse):
        raise NotFoundError(
            f"Response with id {response_id[:100]!r} not found.", param="response_id", code="response_not_found"
        )
    return found


async def _conversation(conversation_id: str, memory: MemoryDep, request: Request) -> StoredConversation:
    return await find_conversation(memory, request.state.tenant, conversation_id, param="conversation_id")


KeptResponse = Annotated[StoredResponse, Depends(_response)]
"""The response of the path; 404 where the key has none."""
KeptConversation = Annotated[StoredConversation, Depends(_conversation)]
"""The conversation of the path; 404 where the key has none."""


def query_of(model: type[Query]) -> Callable[[Request], Awaitable[Query]]:
    """A dependency: the query as a model; lists count by their last entry. Declared before what is looked up by it."""

    async def read(request: Request) -> Query:
        names = {name.removesuffix("[]"): value for name, value in request.query_params.items()}
        try:
            return model.model_validate_strings(names)
        except ValidationError as error:
            raise refusal(error) from error

    return read


def no_item(item_id: str, *, param: str) -> NotFoundError:
    """The refusal of a request that names an item which is not kept.

    Args:
        item_id: what it names.
        param: the request field.
    """
    return NotFoundError(f"Item with id {item_id[:100]!r} not found.", param=param, code="item_not_found")


def page_of(items: Sequence[StoredItem], query: ItemQuery) -> ItemList:
    """A page of items.

    Raises:
        NotFoundError: there is no item the page could begin after.
    """
    ordered = list(items if query.order == "asc" else reversed(items))
    if query.after is not None:
        ids = [item.id for item in ordered]
        if query.after not in ids:
            raise no_item(query.after, param="after")
        ordered = ordered[ids.index(query.after) + 1 :]
    page = ordered[: query.limit]
    return ItemList(
        data=[item.fields for item in page],
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(ordered) > len(page),
    )
