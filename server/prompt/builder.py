"""Turns and prepared media as the engine's prompt: rendered, encoded, counted. Pure, and slow for long texts."""

from collections.abc import Mapping, Sequence
from typing import Any

from model_executor.engine import MediaItem, Prompt
from model_executor.processor.chat_template import TemplateFaultError, supports_tools
from model_executor.processor.chatml import Message, render
from model_executor.processor.placeholders import find_placeholder_fault
from model_executor.processor.tokenizer import Segment, Tokenizer
from server.core.errors import BadRequestError
from server.media.types import PreparedMedia
from server.prompt.context_length import refuse_hopeless
from server.tools.hermes import plain_turns


class PlaceholderError(Exception):
    """Placeholders and grids disagree: a fault of ours, and one the engine would answer with nonsense."""


def build_prompt(
    turns: Sequence[Message],
    media: Sequence[PreparedMedia],
    tokenizer: Tokenizer,
    *,
    template: str | None,
    tools: Sequence[Mapping[str, Any]] = (),
    continue_final_message: bool,
    add_generation_prompt: bool,
    add_vision_id: bool,
    max_model_len: int,
    cache_salt: str | None,
    adapter: str | None = None,
) -> Prompt:
    """The prompt of a conversation, with one placeholder per token of each medium.

    Args:
        turns: the conversation; its media slots index `media`.
        media: what stands in the slots.
        tokenizer: the model's.
        template: the checkpoint's chat template, or None for ChatML.
        tools: what may be called, as the API describes it.
        continue_final_message: as `chatml.render`.
        add_generation_prompt: as `chatml.render`.
        add_vision_id: as `chatml.render`.
        max_model_len: length of the context; texts far beyond it are not encoded.
        cache_salt: as `Prompt.cache_salt`.
        adapter: as `Prompt.adapter`.

    Raises:
        BadRequestError: the template refuses the conversation, or it is far too long.
        PlaceholderError: see the class.
    """
    segments = prompt_segments(
        turns,
        template=template,
        tools=tools,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        add_vision_id=add_vision_id,
    )
    num_media_tokens = [medium.grid.num_tokens for medium in media]
    refuse_hopeless(segments, num_media_tokens, tokenizer, max_model_len)
    encoded = tokenizer.encode(segments, num_media_tokens)
    items = [
        MediaItem(
            modality=medium.modality,
            grid=(medium.grid.t, medium.grid.h, medium.grid.w),
            offset=offset,
            num_tokens=medium.grid.num_tokens,
            digest=medium.digest,
            path=medium.path,
        )
        for medium, offset in zip(media, encoded.media_offsets, strict=True)
    ]
    prompt = Prompt(encoded.token_ids, sorted(items, key=lambda item: item.offset), cache_salt, adapter)
    if (fault := find_placeholder_fault(prompt, tokenizer.placeholder_ids)) is not None:
        raise PlaceholderError(fault)
    return prompt


def prompt_segments(
    turns: Sequence[Message],
    *,
    template: str | None,
    tools: Sequence[Mapping[str, Any]] = (),
    continue_final_message: bool,
    add_generation_prompt: bool,
    add_vision_id: bool,
) -> list[Segment]:
    """The conversation as `chatml.render` renders it, which has the meaning of the arguments.

    Tools, calls and results are the template's business where it knows of tools, and text where it does not.

    Raises:
        BadRequestError: the template refuses the conversation.
    """
    try:
        native = template is not None and supports_tools(template)
        return render(
            turns if native else plain_turns(turns, tools),
            template=template,
            tools=tools if native else (),
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            add_vision_id=add_vision_id,
        )
    except TemplateFaultError as error:
        raise BadRequestError(f"The conversation cannot be rendered: {error}.", param="messages") from error
