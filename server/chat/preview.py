"""The use case: what a chat request would give the model, told without asking the model.

Media are fetched and prepared as for an answer, which may then find them in the cache. What only concerns the answer
(sampling, streaming) is checked with the request and has no effect.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from model_executor.processor.chatml import PLACEHOLDERS
from model_executor.processor.tokenizer import MediaPlaceholder, Segment, TemplateText, UserText
from server.chat.preview_response import ChatPreview, PreviewPart, TokenCounts
from server.chat.request import ChatCompletionRequest
from server.chat.serving import ServedModel
from server.generation.grammar import grammar_of
from server.media.types import MediaPart, PreparedMedia
from server.prompt.builder import prompt_segments
from server.prompt.context_length import refuse_hopeless
from server.prompt.conversation import Conversation, read_conversation
from server.prompt.media_report import media_report
from server.tools.grammar import described


async def preview(request: ChatCompletionRequest, model: ServedModel, tenant: str) -> ChatPreview:
    """Render, prepare and count a request; its engine is not asked, and may be away.

    Args:
        request: what would be asked.
        model: what would answer.
        tenant: whose caches may be used; the empty string where there is one tenant only.

    Raises:
        ApiError: the request cannot be rendered or is far too long, or one of its media cannot be used.
    """
    grammar_of(request)  # for what it refuses
    conversation = read_conversation(request.messages)
    media = await model.media.prepare(conversation.media, tenant)
    try:
        return await asyncio.to_thread(_preview, request, conversation, media, model)
    finally:
        for medium in media:
            medium.release()


def _preview(
    request: ChatCompletionRequest, conversation: Conversation, media: Sequence[PreparedMedia], model: ServedModel
) -> ChatPreview:
    """Runs in a thread: long texts take a while."""
    segments = prompt_segments(
        conversation.turns,
        template=model.chat_template,
        tools=described(request),
        add_generation_prompt=request.opens_turn,
        continue_final_message=request.continue_final_message,
        add_vision_id=request.add_vision_id,
    )
    num_media_tokens = [medium.grid.num_tokens for medium in media]
    refuse_hopeless(segments, num_media_tokens, model.tokenizer, model.engine.max_model_len)
    counts = model.tokenizer.count(segments, num_media_tokens)
    parts = [_part(segment, count, conversation.media) for segment, count in zip(segments, counts, strict=True)]
    totals: Counter[str] = Counter()
    for part in parts:
        totals[part.type] += part.tokens
    return ChatPreview(
        object="chat.completion.preview",
        model=request.model,
        prompt="".join(PLACEHOLDERS[s.modality] if isinstance(s, MediaPlaceholder) else s.text for s in segments),
        prompt_tokens=sum(counts),
        prompt_tokens_details=TokenCounts(
            control=totals["control"], text=totals["text"], image=totals["image"], video=totals["video"]
        ),
        max_model_len=model.engine.max_model_len,
        parts=parts,
        media=media_report(conversation.media, media).media,
    )


def _part(segment: Segment, num_tokens: int, media: Sequence[MediaPart]) -> PreviewPart:
    match segment:
        case TemplateText(text):
            return PreviewPart(type="control", tokens=num_tokens, text=text, param=None)
        case UserText(text):
            return PreviewPart(type="text", tokens=num_tokens, text=text, param=None)
        case MediaPlaceholder(index, modality):
            return PreviewPart(type=modality, tokens=num_tokens, text=None, param=media[index].param)
