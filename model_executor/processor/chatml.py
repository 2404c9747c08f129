"""Renders messages to prompt segments in ChatML, by the checkpoint's own chat template or the built-in one. Pure.

User text and template text are separate segments, so user text can never become a special token
(`model_executor/processor/chat_template.py` ensures it for the checkpoint's template).

Twin: `model_executor/processor/tokenizer.py` turns the segments into ids.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

from model_executor.engine import Modality
from model_executor.processor.chat_template import Sentinels, TemplateFaultError, Text, render_template
from model_executor.processor.tokenizer import PLACEHOLDERS, MediaPlaceholder, Segment, TemplateText, UserText

DEFAULT_SYSTEM = "You are a helpful assistant."
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """How an image or a video stands in the prompt."""

    placeholder: str
    """Name of the token that is repeated, once per embedding."""
    start: str
    end: str
    """Template text around the placeholders."""
    label: str
    """What it is called where media are numbered: `Picture 1: `."""


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """How a family of models writes prompts."""

    media: Mapping[Modality, MediaFormat]
    is_numbered: bool = False
    """Whether media are always numbered, also where a request does not ask for it."""
    is_cut_after_roles: bool = False
    """Whether the text of a turn is encoded apart from the line of its role."""
    has_tools: bool = True
    """Whether models have learned to call functions by themselves."""
    is_raw: bool = False
    """Whether a prompt is the turns' contents alone, as for a model that was not trained on conversations."""
    user_tokens: tuple[str, ...] = ()
    """Special tokens that may stand in user text: they mark regions, change no role and hold no place."""

    @property
    def placeholders(self) -> dict[Modality, str]:
        """Names of the placeholder tokens."""
        return {modality: each.placeholder for modality, each in self.media.items()}


QWEN2_FORMAT = PromptFormat(
    {
        "image": MediaFormat(PLACEHOLDERS["image"], "<|vision_start|>", "<|vision_end|>", "Picture"),
        "video": MediaFormat(PLACEHOLDERS["video"], "<|vision_start|>", "<|vision_end|>", "Video"),
    }
)
"""Qwen2-VL's, and its successors'."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function call of the assistant."""

    name: str
    arguments: Mapping[str, Any] | str
    """The text itself if it is no JSON object."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: its parts in order, text as strings and media as placeholders, and its tool calls."""

    role: Role
    parts: tuple[str | MediaPlaceholder, ...]
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class RenderedTurn:
    """One turn with its tool calls and results written out as text."""

    role: Role
    parts: tuple[Segment, ...]
    calls: tuple[Call, ...] = ()
    """Calls that are left to the template."""


def turn_segments(turn: Message | RenderedTurn) -> list[Segment]:
    """The parts of a turn as segments."""
    return [UserText(part) if isinstance(part, str) else part for part in turn.parts]


def render(
    messages: Sequence[Message | RenderedTurn],
    *,
    prompt_format: PromptFormat = QWEN2_FORMAT,
    template: str | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    add_vision_id: bool = False,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> list[Segment]:
    """Segments of a conversation, in prompt order.

    Args:
        messages: the turns; media placeholders are numbered from 0 in prompt order.
        prompt_format: how the model's family writes prompts.
        template: the checkpoint's Jinja chat template; None for the built-in ChatML, which supports neither tools nor
            tool calls nor results (`server/tools/hermes.py` turns them into text).
        tools: the available tools, as the API describes them.
        add_generation_prompt: end with the beginning of an assistant turn.
        continue_final_message: leave the last turn open for the model to continue; excludes `add_generation_prompt`.
        add_vision_id: write a label such as `Picture 1: ` before each image and video.
        options: further variables of the checkpoint's template, by a client; the built-in one has none.

    Raises:
        TemplateFaultError: the template rejects the conversation, or drops or repeats parts of it.

    Source: Qwen2-VL report (arXiv 2409.12191) section 2.3 and the release's chat template.
    """
    if continue_final_message and (not messages or add_generation_prompt):
        raise TemplateFaultError("continue_final_message needs a last message and no generation prompt")
    if template is None:
        segments = _render_chatml(
            messages, prompt_format, add_generation_prompt=add_generation_prompt, add_vision_id=add_vision_id
        )
    else:
        switches = {"add_generation_prompt": add_generation_prompt, "add_vision_id": add_vision_id}
        rendered = _render_template(messages, prompt_format, template, tools, {**options, **switches})
        placeholders = [part for message in messages for part in message.parts if isinstance(part, MediaPlaceholder)]
        segments = _place_media(rendered, placeholders, prompt_format)
    merged = _merge(segments)
    return _reopen_last_turn(merged) if continue_final_message and not prompt_format.is_raw else merged


def _render_chatml(
    messages: Sequence[Message | RenderedTurn],
    prompt_format: PromptFormat,
    *,
    add_generation_prompt: bool,
    add_vision_id: bool,
) -> list[Segment]:
    segments: list[Segment] = []
    counts: dict[Modality, int] = {"image": 0, "video": 0}
    framed, cut = not prompt_format.is_raw, prompt_format.is_cut_after_roles
    if framed and (not messages or messages[0].role != "system"):
        segments.append(TemplateText(f"<|im_start|>system\n{DEFAULT_SYSTEM}<|im_end|>\n"))
    for message in messages:
        if framed:
            segments.append(TemplateText(f"<|im_start|>{message.role}\n", is_cut=cut))
        for part in turn_segments(message):
            if not isinstance(part, MediaPlaceholder):
                segments.append(part)
                continue
            counts[part.modality] += 1
            media = prompt_format.media[part.modality]
            label = f"{media.label} {counts[part.modality]}: " if add_vision_id or prompt_format.is_numbered else ""
            segments += [TemplateText(label + media.start), part, TemplateText(media.end)]
        if framed:
            segments.append(TemplateText("<|im_end|>\n"))
    if add_generation_prompt and framed:
        segments.append(TemplateText("<|im_start|>assistant\n"))
    return segments


def _render_template(
    messages: Sequence[Message | RenderedTurn],
    prompt_format: PromptFormat,
    template: str,
    tools: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
) -> list[Text]:
    sentinels = Sentinels()
    if not _takes_parts(template, prompt_format.media["image"].placeholder):
        messages = _with_written_media(messages, prompt_format, add_vision_id=bool(options["add_vision_id"]))
    return render_template(
        template,
        sentinels,
        **{name: sentinels.option(value) for name, value in options.items()},
        messages=[_template_message(message, sentinels) for message in messages],
        tools=[_template_function(tool, sentinels) for tool in tools] or None,
    )


@lru_cache(maxsize=8)
def _takes_parts(template: str, placeholder: str) -> bool:
    """Whether a template writes an image's placeholder for a part of a message; others take text only."""
    sentinels = Sentinels()
    content = [{"type": "image", "image": ""}, {"type": "text", "text": sentinels.content([UserText("?")])}]
    try:
        texts = render_template(
            template,
            sentinels,
            messages=[{"role": "user", "content": content}],
            tools=None,
            add_generation_prompt=True,
            add_vision_id=False,
        )
    except TemplateFaultError:
        return False
    return any(placeholder in text.text for text in texts if isinstance(text, TemplateText))


def _with_written_media(
    messages: Sequence[Message | RenderedTurn], prompt_format: PromptFormat, *, add_vision_id: bool
) -> list[Message | RenderedTurn]:
    """Messages whose media are template text, as a template that takes text needs them."""
    counts: Counter[Modality] = Counter()

    def written(part: Segment) -> Segment:
        if not isinstance(part, MediaPlaceholder):
            return part
        counts[part.modality] += 1
        media = prompt_format.media[part.modality]
        is_numbered = add_vision_id or prompt_format.is_numbered
        label = f"{media.label} {counts[part.modality]}: " if is_numbered else ""
        return TemplateText(label + media.start + media.placeholder + media.end)

    turns: list[Message | RenderedTurn] = []
    for message in messages:
        if any(isinstance(part, MediaPlaceholder) for part in message.parts):
            parts = tuple(written(part) for part in turn_segments(message))
            turns.append(RenderedTurn(message.role, parts, message.calls))
        else:
            turns.append(message)
    return turns


def _template_message(message: Message | RenderedTurn, sentinels: Sentinels) -> dict[str, Any]:
    """A message in the form that chat templates read."""
    parts = turn_segments(message)
    texts = [part for part in parts if not isinstance(part, MediaPlaceholder)]
    content: str | list[dict[str, str]] = ""
    if len(texts) < len(parts):
        content = [
            {"type": part.modality, part.modality: ""}
            if isinstance(part, MediaPlaceholder)
            else {"type": "text", "text": sentinels.content([part])}
            for part in parts
        ]
    elif texts:
        content = sentinels.content(texts)
    turn: dict[str, Any] = {"role": message.role, "content": content}
    if message.calls:
        turn["tool_calls"] = [
            _template_function(
                {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}, sentinels
            )
            for call in message.calls
        ]
    return turn


def _template_function(tool: Mapping[str, Any], sentinels: Sentinels) -> dict[str, Any]:
    """A function or a function call for the template, which must write at least its name."""
    function = {**sentinels.value(tool["function"]), "name": sentinels.name(tool["function"]["name"])}
    return {"type": "function", "function": function}


def _place_media(
    texts: Sequence[Text], placeholders: Sequence[MediaPlaceholder], prompt_format: PromptFormat
) -> list[Segment]:
    """Texts with the media where the template has written their placeholder tokens."""
    modalities = {name: modality for modality, name in prompt_format.placeholders.items()}
    segments: list[Segment] = []
    for text in texts:
        segments.extend(_split_placeholders(text.text, modalities) if isinstance(text, TemplateText) else [text])
    written = [segment.modality for segment in segments if isinstance(segment, MediaPlaceholder)]
    if written != [placeholder.modality for placeholder in placeholders]:
        raise TemplateFaultError("the model's chat template drops, repeats or reorders media of this conversation")
    in_order = iter(placeholders)
    return [next(in_order) if isinstance(segment, MediaPlaceholder) else segment for segment in segments]


def _split_placeholders(text: str, modalities: Mapping[str, Modality]) -> Iterator[Segment]:
    """Template text and its placeholder tokens as separate segments (the caller numbers the placeholders)."""
    for piece in re.split("(" + "|".join(map(re.escape, modalities)) + ")", text):
        if piece in modalities:
            yield MediaPlaceholder(-1, modalities[piece])
        elif piece:
            yield TemplateText(piece)


def _reopen_last_turn(segments: list[Segment]) -> list[Segment]:
    """The segments without the end of the last turn."""
    last = segments[-1]
    if not isinstance(last, TemplateText) or "<|im_end|>" not in last.text:
        raise TemplateFaultError("the model's chat template does not close a turn with <|im_end|>")
    return _merge([*segments[:-1], TemplateText(last.text.rpartition("<|im_end|>")[0])])


def _merge(segments: list[Segment]) -> list[Segment]:
    """Adjacent template texts as one segment, without empty texts."""
    merged: list[Segment] = []
    for segment in segments:
        if not isinstance(segment, MediaPlaceholder) and not segment.text:
            continue
        last = merged[-1] if merged else None
        if isinstance(segment, TemplateText) and isinstance(last, TemplateText) and not last.is_cut:
            merged[-1] = TemplateText(last.text + segment.text, segment.is_cut)
        else:
            merged.append(segment)
    return merged
