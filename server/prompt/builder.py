"""Builds the engine's prompt: renders a conversation, encodes it, counts its placeholders. Slow for long texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model_executor.engine import MediaItem, Prompt
from model_executor.processor.chat_template import TemplateFaultError, supports_tools, variables
from model_executor.processor.chatml import QWEN2_FORMAT, PromptFormat, render
from model_executor.processor.placeholders import find_placeholder_fault
from model_executor.processor.tokenizer import Segment, Tokenizer, UserText
from server.core.errors import BadRequestError
from server.media.types import PreparedMedia
from server.prompt.context_length import check_context_length
from server.prompt.conversation import Conversation
from server.prompt.plain import PlainPrompt, check_token_ids
from server.tools.grammar import tool_descriptions
from server.tools.hermes import plain_turns

VISION_ID = "add_vision_id"
"""The option of a template that requests have as a field, too."""
_SERVERS_OWN_VARIABLES = frozenset(
    ("messages", "tools", "documents", "add_generation_prompt", "continue_final_message", VISION_ID)
)


class PlaceholderError(Exception):
    """Placeholders and grids disagree: a fault of ours, and one the engine would answer with nonsense."""


@dataclass(frozen=True, slots=True)
class PromptBuilder:
    """Builds the prompts of one model."""

    tokenizer: Tokenizer
    template: str | None
    """The checkpoint's Jinja chat template, or None for ChatML."""
    max_model_len: int
    """Length of the context, in tokens; texts far beyond it are not encoded."""
    prompt_format: PromptFormat = QWEN2_FORMAT
    """Of the model's family."""
    tool_template: str | None = None
    """The checkpoint's Jinja chat template for conversations with tools; None if `template` is for these, too."""
    num_answer_tokens: int | None = None
    """The longest answer a client requests, for refusals of texts far too long; None where it names none."""

    def chat(
        self, conversation: Conversation, media: Sequence[PreparedMedia], *, cache_salt: str | None, adapter: str | None
    ) -> Prompt:
        """The prompt of a conversation, with one placeholder per token of each image and video.

        Args:
            conversation: what to render.
            media: what its media became, in order.
            cache_salt: as `Prompt.cache_salt`.
            adapter: as `Prompt.adapter`.

        Raises:
            BadRequestError: the template refuses the conversation, or it is far too long.
            PlaceholderError: see the class.
        """
        num_media_tokens = [item.grid.num_tokens for item in media]
        encoded = self.tokenizer.encode(self.segments(conversation, num_media_tokens), num_media_tokens)
        items = [
            MediaItem(
                modality=item.modality,
                grid=(item.grid.t, item.grid.h, item.grid.w),
                offset=offset,
                num_tokens=item.grid.num_tokens,
                digest=item.digest,
                path=item.path,
                slice_s=item.slice_s,
            )
            for item, offset in zip(media, encoded.media_offsets, strict=True)
        ]
        prompt = Prompt(encoded.token_ids, sorted(items, key=lambda item: item.offset), cache_salt, adapter)
        if (fault := find_placeholder_fault(prompt, self.tokenizer.placeholder_ids)) is not None:
            raise PlaceholderError(fault)
        return prompt

    def segments(self, conversation: Conversation, num_media_tokens: Sequence[int]) -> list[Segment]:
        """A conversation rendered, not encoded.

        Args:
            conversation: what to render.
            num_media_tokens: placeholders of each image or video.

        Raises:
            BadRequestError: the template refuses the conversation, or it is far too long.
        """
        segments = render_conversation(conversation, self._template_of(conversation), self.prompt_format)
        self._check_length(segments, num_media_tokens, conversation.param)
        return segments

    def _template_of(self, conversation: Conversation) -> str | None:
        return self.tool_template if conversation.tools and self.tool_template else self.template

    def text_ids(self, text: str, param: str) -> list[int]:
        """Token ids of a client's text, in which nothing is a special token.

        Args:
            text: may be empty.
            param: the request field it stands in.

        Raises:
            BadRequestError: it is far too long.
        """
        segments = [UserText(text)]
        self._check_length(segments, [], param)
        return self.tokenizer.encode(segments, []).token_ids

    def _check_length(self, segments: Sequence[Segment], num_media_tokens: Sequence[int], param: str) -> None:
        check_context_length(
            segments,
            num_media_tokens,
            self.tokenizer,
            self.max_model_len,
            param=param,
            num_answer_tokens=self.num_answer_tokens,
        )

    def plain(self, prompt: PlainPrompt, *, cache_salt: str | None, adapter: str | None) -> Prompt:
        """The prompt of a text or of token ids.

        Args:
            prompt: what is continued.
            cache_salt: as `Prompt.cache_salt`.
            adapter: as `Prompt.adapter`.

        Raises:
            BadRequestError: it is empty or far too long, or an id is unknown or stands for media.
        """
        return Prompt(self._plain_ids(prompt), [], cache_salt, adapter)

    def _plain_ids(self, prompt: PlainPrompt) -> list[int]:
        param = prompt.param
        if isinstance(prompt.source, str):
            ids = self.text_ids(prompt.source, param)
            if not ids:
                raise BadRequestError(f"'{param}' is empty.", param=param, code="invalid_value")
            return ids
        check_token_ids(
            ((f"{param}[{index}]", token_id) for index, token_id in enumerate(prompt.source)), self.tokenizer.num_tokens
        )
        for name in self.prompt_format.placeholders.values():
            if self.tokenizer.special_id(name) in prompt.source:
                raise BadRequestError(
                    f"'{param}' has the placeholder {name}, and media come with chat requests only.",
                    param=param,
                    code="invalid_value",
                )
        return prompt.source

    def unread_options(self, conversation: Conversation) -> list[str]:
        """Names of a conversation's template options that the template does not read."""
        try:
            read = _read_options(conversation, self._template_of(conversation))
        except TemplateFaultError:  # which refuses the conversation anyway
            return []
        return [name for name in conversation.template_options if name not in read and name != VISION_ID]


def _read_options(conversation: Conversation, template: str | None) -> dict[str, Any]:
    """The options of a conversation that are left to the template."""
    names = frozenset() if template is None or not conversation.template_options else variables(template)
    return {
        name: value
        for name, value in conversation.template_options.items()
        if name in names and name not in _SERVERS_OWN_VARIABLES
    }


def render_conversation(
    conversation: Conversation, template: str | None, prompt_format: PromptFormat = QWEN2_FORMAT
) -> list[Segment]:
    """The segments of a conversation, in prompt order.

    Tools, calls and results are the template's business where it knows of tools, and text where it does not.

    Args:
        conversation: what to render.
        template: as `PromptBuilder.template`.
        prompt_format: as `PromptBuilder.prompt_format`.

    Raises:
        BadRequestError: the template refuses the conversation.
    """
    if conversation.tools is not None and not conversation.tools.must_call and not prompt_format.has_tools:
        raise BadRequestError(
            "This model has not learned to call functions by itself; require a call (tool_choice: 'required', or a "
            "function by name).",
            param="tools",
            code="unsupported_value",
        )
    tools = tool_descriptions(conversation.tools)
    try:
        native = template is not None and supports_tools(template)
        return render(
            conversation.turns if native else plain_turns(conversation.turns, tools),
            prompt_format=prompt_format,
            template=template,
            tools=tools if native else (),
            add_generation_prompt=conversation.add_generation_prompt,
            continue_final_message=conversation.continue_final_message,
            add_vision_id=conversation.add_vision_id or conversation.template_options.get(VISION_ID) is True,
            options=_read_options(conversation, template),
        )
    except TemplateFaultError as error:
        raise BadRequestError(
            f"The conversation cannot be rendered: {error}.", param=conversation.param, code="invalid_value"
        ) from error
