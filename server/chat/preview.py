"""Previews a chat request: renders and counts the prompt it becomes, without generating.

Media are fetched and prepared as for an answer, which may then find them in the cache. What only concerns the answer
(sampling, streaming) is checked with the request and has no effect.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from model_executor.processor.tokenizer import MediaPlaceholder, Segment, TemplateText, UserText
from server.chat.preview_response import ChatPreview, PreviewPart, TokenCounts
from server.chat.reader import read_request
from server.chat.request import ChatCompletionRequest
from server.generation.model_service import ServedModel
from server.media.types import MediaPart, PreparedMedia
from server.prompt.conversation import Conversation
from server.prompt.media_report import media_report


async def preview(request: ChatCompletionRequest, model: ServedModel, tenant: str) -> ChatPreview:
    """Render, prepare and count a request; needs no engine, which may be away.

    Args:
        request: what to preview.
        model: what would answer.
        tenant: whose caches may be used; the empty string where there is one tenant only.

    Raises:
        ApiError: the request cannot be rendered or is far too long, or one of its media cannot be used.
    """
    conversation = read_request(request, tenant).prompt
    assert isinstance(conversation, Conversation)
    async with model.prepared(conversation, tenant) as (seen, media):
        return await asyncio.to_thread(_preview, request.model, seen, media, model)


def _preview(name: str, conversation: Conversation, media: Sequence[PreparedMedia], model: ServedModel) -> ChatPreview:
    """Runs in a thread: long texts take a while."""
    num_media_tokens = [item.grid.num_tokens for item in media]
    segments = model.prompt_builder.segments(conversation, num_media_tokens)
    counts = model.tokenizer.count(segments, num_media_tokens)
    parts = [_part(segment, count, conversation.media) for segment, count in zip(segments, counts, strict=True)]
    totals: Counter[str] = Counter()
    for part in parts:
        totals[part.type] += part.tokens
    placeholders = model.prompt_format.placeholders
    return ChatPreview(
        object="chat.completion.preview",
        model=name,
        prompt="".join(placeholders[s.modality] if isinstance(s, MediaPlaceholder) else s.text for s in segments),
        prompt_tokens=sum(counts),
        prompt_tokens_details=TokenCounts(
            control=totals["control"], text=totals["text"], image=totals["image"], video=totals["video"]
        ),
        max_model_len=model.engine.max_model_len,
        parts=parts,
        media=list(media_report(conversation.media, media, model.family.box_unit)),
    )


def _part(segment: Segment, num_tokens: int, media: Sequence[MediaPart]) -> PreviewPart:
    match segment:
        case TemplateText(text):
            return PreviewPart(type="control", tokens=num_tokens, text=text, param=None)
        case UserText(text):
            return PreviewPart(type="text", tokens=num_tokens, text=text, param=None)
        case MediaPlaceholder(index, modality):
            return PreviewPart(type=modality, tokens=num_tokens, text=None, param=media[index].param)
