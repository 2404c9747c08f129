"""Counts the tokens of a prompt without generating; needs no engine, which may be away."""

import asyncio

from server.generation.model_service import ServedModel
from server.prompt.conversation import Conversation
from server.prompt.video_frames import with_frames


async def count_tokens(model: ServedModel, conversation: Conversation, tenant: str) -> int:
    """Render and encode a conversation; its media are prepared as for an answer, which may then find them.

    Args:
        model: what would answer.
        conversation: what to count.
        tenant: whose caches may be used.

    Raises:
        ApiError: it cannot be rendered or is far too long, or one of its media cannot be used.
    """
    conversation = with_frames(conversation, model.family.frames_as_images)
    media = await model.media.prepare(conversation.media, tenant) if conversation.media else []
    try:
        prompt = await asyncio.to_thread(model.prompt_builder.chat, conversation, media, cache_salt=None, adapter=None)
        return len(prompt.token_ids)
    finally:
        for item in media:
            item.release()
