"""Counts the tokens of a prompt without generating; needs no engine, which may be away."""

import asyncio

from server.generation.model_service import ServedModel
from server.prompt.conversation import Conversation


async def count_tokens(model: ServedModel, conversation: Conversation, tenant: str) -> int:
    """Render and encode a conversation; its media are prepared as for an answer, which may then find them.

    Args:
        model: what would answer.
        conversation: what to count.
        tenant: whose caches may be used.

    Raises:
        ApiError: it cannot be rendered or is far too long, or one of its media cannot be used.
    """
    async with model.prepared(conversation, tenant) as (seen, media):
        prompt = await asyncio.to_thread(model.prompt_builder.chat, seen, media, cache_salt=None, adapter=None)
        return len(prompt.token_ids)
