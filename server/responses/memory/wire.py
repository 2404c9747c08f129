"""Bodies, queries and answers of the routes for what is remembered."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from server.api.base_models import MAX_METADATA, RequestModel, at_most, bounded
from server.responses.input import AnyInput

Metadata = Annotated[dict[str, str], Field(max_length=MAX_METADATA), at_most(MAX_METADATA)]
MAX_NEW_ITEMS = 1024
"""Items of one request to a conversation; OpenAI takes 20."""


class RetrieveQuery(RequestModel):
    """Query of a response."""

    include: str | None = None
    """Accepted; the response is as it was answered."""
    stream: Annotated[Literal["false"], Field(json_schema_extra={"type": "string"})] = "false"
    """A response is not streamed again."""


class ItemQuery(RequestModel):
    """Query of a list of items."""

    after: str | None = None
    """Id of the item after which the page begins."""
    limit: Annotated[int, Field(strict=False, ge=1, le=1000)] = 20
    """Maximum number of items in the page."""
    order: Literal["asc", "desc"] = "desc"
    """By their place in the conversation; desc begins with the last."""
    include: str | None = None
    """Accepted; items are as they were sent."""


class NewConversation(RequestModel):
    """A conversation to keep."""

    items: Annotated[list[AnyInput], bounded(MAX_NEW_ITEMS)] = []
    """What it begins with."""
    metadata: Metadata = {}


class NewItems(RequestModel):
    """Items to add to a conversation."""

    items: Annotated[list[AnyInput], bounded(MAX_NEW_ITEMS, least=1)]


class ConversationUpdate(RequestModel):
    """What to change of a conversation."""

    metadata: Metadata


class ItemList(BaseModel):
    """A page of items."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Conversation(BaseModel):
    """A conversation that is kept."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    """Seconds since 1970."""
    metadata: dict[str, str]


class ConversationDeleted(BaseModel):
    """Confirms that a conversation was deleted."""

    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: Literal[True] = True


class ResponseDeleted(BaseModel):
    """Confirms that a response was deleted."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputTokens(BaseModel):
    """How long a prompt is."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int
