"""Messages to prompt segments: ChatML, by the checkpoint's own chat template or by ours. Pure.

Client text stays apart from control text, so whatever a client types can never become a control token
(`model_executor/processor/chat_template.py` says how a template is kept to that).

Twin: `model_executor/processor/tokenizer.py` turns the segments into ids.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model_executor.engine import Modality
from model_executor.processor.chat_template import Sentinels, TemplateFaultError, Text, render_template
from model_executor.processor.tokenizer import MediaPlaceholder, Segment, TemplateText, UserText

DEFAULT_SYSTEM = "You are a helpful assistant."
Role = Literal["system", "user", "assistant", "tool"]

_LABEL: dict[Modality, str] = {"image": "Picture", "video": "Video"}
PLACEHOLDERS: dict[Modality, str] = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
"""The token that stands for each token of a medium."""
_MODALITY = {name: modality for modality, name in PLACEHOLDERS.items()}
_PLACEHOLDER_PATTERN = re.compile("(" + "|".join(map(re.escape, _MODALITY)) + ")")


@dataclass(frozen=True, slots=True)
class Call:
    """A function the assistant called."""

    name: str
    arguments: Mapping[str, Any] | str
    """The text as it was written where that is no JSON object."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: its parts in order, text as strings and media as slots, and what it calls."""

    role: Role
    parts: tuple[str | MediaPlaceholder, ...]
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class RenderedTurn:
    """One turn with everything that is not said by itself, such as calls, written out."""

    role: Role
    parts: tuple[Segment, ...]


def segments_of(turn: Message | RenderedTurn) -> list[Segment]:
    """The parts of a turn, client text apart."""
    return [UserText(part) if isinstance(part, str) else part for part in turn.parts]


def render(
    messages: Sequence[Message | RenderedTurn],
    *,
    template: str | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    add_vision_id: bool = False,
) -> list[Segment]:
    """Segments of a conversation, in prompt order.

    Args:
        messages: the turns; media slots are numbered from 0 in the order they stand.
        template: the checkpoint's Jinja chat template; None for the built-in ChatML, which knows neither tools nor
            calls nor results (`server/tools/hermes.py` makes text of them).
        tools: what may be called, as the API describes it.
        add_generation_prompt: end with the opening of an assistant turn.
        continue_final_message: leave the last turn open, for the model to go on with it; excludes the former.
        add_vision_id: name each medium (`Picture 1: `) before it.

    Raises:
        TemplateFaultError: the template refuses the conversation, or loses or repeats parts of it.

    Source: Qwen2-VL report (arXiv 2409.12191) section 2.3 and the release's chat template.
    """
    if continue_final_message and (not messages or add_generation_prompt):
        raise TemplateFaultError("continue_final_message needs a last message and no generation prompt")
    if template is None:
        segments = _chatml(messages, add_generation_prompt=add_generation_prompt, add_vision_id=add_vision_id)
    else:
        segments = _templated(messages, template, tools, add_generation_prompt, add_vision_id)
    merged = _merged(segments)
    return _reopened(merged) if continue_final_message else merged


def _chatml(
    messages: Sequence[Message | RenderedTurn], *, add_generation_prompt: bool, add_vision_id: bool
) -> list[Segment]:
    segments: list[Segment] = []
    counts: dict[Modality, int] = {"image": 0, "video": 0}
    if not messages or messages[0].role != "system":
        segments.append(TemplateText(f"<|im_start|>system\n{DEFAULT_SYSTEM}<|im_end|>\n"))
    for message in messages:
        segments.append(TemplateText(f"<|im_start|>{message.role}\n"))
        for part in segments_of(message):
            if not isinstance(part, MediaPlaceholder):
                segments.append(part)
                continue
            counts[part.modality] += 1
            label = f"{_LABEL[part.modality]} {counts[part.modality]}: " if add_vision_id else ""
            segments += [TemplateText(f"{label}<|vision_start|>"), part, TemplateText("<|vision_end|>")]
        segments.append(TemplateText("<|im_end|>\n"))
    if add_generation_prompt:
        segments.append(TemplateText("<|im_start|>assistant\n"))
    return segments


def _templated(
    messages: Sequence[Message | RenderedTurn],
    template: str,
    tools: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool,
    add_vision_id: bool,
) -> list[Segment]:
    marks = Sentinels()
    rendered = render_template(
        template,
        marks,
        messages=[_turn(message, marks) for message in messages],
        tools=[_named(tool, marks) for tool in tools] or None,
        add_generation_prompt=add_generation_prompt,
        add_vision_id=add_vision_id,
    )
    slots = [part for message in messages for part in message.parts if isinstance(part, MediaPlaceholder)]
    return _placed(rendered, slots)


def _turn(message: Message | RenderedTurn, marks: Sentinels) -> dict[str, Any]:
    """A message as templates take it."""
    parts = segments_of(message)
    texts = [part for part in parts if not isinstance(part, MediaPlaceholder)]
    content: str | list[dict[str, str]] = ""
    if len(texts) < len(parts):
        content = [
            {"type": part.modality, part.modality: ""}
            if isinstance(part, MediaPlaceholder)
            else {"type": "text", "text": marks.content([part])}
            for part in parts
        ]
    elif texts:
        content = marks.content(texts)
    turn: dict[str, Any] = {"role": message.role, "content": content}
    if isinstance(message, Message) and message.calls:
        turn["tool_calls"] = [
            _named({"type": "function", "function": {"name": call.name, "arguments": call.arguments}}, marks)
            for call in message.calls
        ]
    return turn


def _named(tool: Mapping[str, Any], marks: Sentinels) -> dict[str, Any]:
    """A function, or a call of one, of which at least the name must come out."""
    function = {**marks.value(tool["function"]), "name": marks.name(tool["function"]["name"])}
    return {"type": "function", "function": function}


def _placed(texts: Sequence[Text], slots: Sequence[MediaPlaceholder]) -> list[Segment]:
    """Texts with the media in the places the template has for them."""
    segments: list[Segment] = []
    for text in texts:
        segments.extend(_control(text.text) if isinstance(text, TemplateText) else [text])
    placed = [segment for segment in segments if isinstance(segment, MediaPlaceholder)]
    if [slot.modality for slot in placed] != [slot.modality for slot in slots]:
        raise TemplateFaultError("the model's chat template leaves out, repeats or reorders media of this conversation")
    in_order = iter(slots)
    return [next(in_order) if isinstance(segment, MediaPlaceholder) else segment for segment in segments]


def _control(text: str) -> Iterator[Segment]:
    """Control text with the template's media placeholders taken out as slots (numbered by the caller)."""
    for piece in _PLACEHOLDER_PATTERN.split(text):
        if piece in _MODALITY:
            yield MediaPlaceholder(-1, _MODALITY[piece])
        elif piece:
            yield TemplateText(piece)


def _reopened(segments: list[Segment]) -> list[Segment]:
    """The segments without what closes the last turn."""
    last = segments[-1]
    if not isinstance(last, TemplateText) or "<|im_end|>" not in last.text:
        raise TemplateFaultError("the model's chat template does not close a turn with <|im_end|>")
    return _merged([*segments[:-1], TemplateText(last.text.rpartition("<|im_end|>")[0])])


def _merged(segments: list[Segment]) -> list[Segment]:
    """Neighboring control texts as one, empty texts left out."""
    merged: list[Segment] = []
    for segment in segments:
        if not isinstance(segment, MediaPlaceholder) and not segment.text:
            continue
        if merged and isinstance(segment, TemplateText) and isinstance(merged[-1], TemplateText):
            merged[-1] = TemplateText(merged[-1].text + segment.text)
        else:
            merged.append(segment)
    return merged
