"""Messages to prompt segments: ChatML, by the checkpoint's own chat template or by ours. Pure.

Client text stays apart from control text: a template is rendered with an unguessable sentinel in place of every piece
of client text, and the result is split at the sentinels. Whatever a client types can therefore never become a control
token, and a template's own logic still decides everything around it.

Twin: `model_executor/tokens.py` turns the segments into ids.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NoReturn

from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from model_executor.engine import Modality
from model_executor.tokens import ClientText, ControlText, MediaSlot, Segment

DEFAULT_SYSTEM = "You are a helpful assistant."
Role = Literal["system", "user", "assistant"]

_LABEL: dict[Modality, str] = {"image": "Picture", "video": "Video"}
PLACEHOLDERS: dict[Modality, str] = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
"""The token that stands for each token of a medium."""
_MODALITY = {name: modality for modality, name in PLACEHOLDERS.items()}
_PLACEHOLDER_PATTERN = re.compile("(" + "|".join(map(re.escape, _MODALITY)) + ")")


class TemplateFaultError(Exception):
    """The chat template refuses the conversation, or loses or repeats parts of it."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: its parts in order, text as strings and media as slots."""

    role: Role
    parts: tuple[str | MediaSlot, ...]


def render(
    messages: Sequence[Message],
    *,
    template: str | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    add_vision_id: bool = False,
) -> list[Segment]:
    """Segments of a conversation, in prompt order.

    Args:
        messages: the turns; media slots are numbered from 0 in the order they stand.
        template: the checkpoint's Jinja chat template; None for the built-in ChatML.
        add_generation_prompt: end with the opening of an assistant turn.
        continue_final_message: leave the last turn open, for the model to go on with it; excludes the former.
        add_vision_id: name each medium (`Picture 1: `) before it.

    Raises:
        TemplateFaultError: see the class.

    Source: Qwen2-VL report (arXiv 2409.12191) section 2.3 and the release's chat template.
    """
    if continue_final_message and (not messages or add_generation_prompt):
        raise TemplateFaultError("continue_final_message needs a last message and no generation prompt")
    if template is None:
        segments = _chatml(messages, add_generation_prompt=add_generation_prompt, add_vision_id=add_vision_id)
    else:
        segments = _templated(messages, template, add_generation_prompt, add_vision_id)
    merged = _merged(segments)
    return _reopened(merged) if continue_final_message else merged


def _chatml(messages: Sequence[Message], *, add_generation_prompt: bool, add_vision_id: bool) -> list[Segment]:
    segments: list[Segment] = []
    counts: dict[Modality, int] = {"image": 0, "video": 0}
    if not messages or messages[0].role != "system":
        segments.append(ControlText(f"<|im_start|>system\n{DEFAULT_SYSTEM}<|im_end|>\n"))
    for message in messages:
        segments.append(ControlText(f"<|im_start|>{message.role}\n"))
        for part in message.parts:
            if isinstance(part, str):
                segments.append(ClientText(part))
                continue
            counts[part.modality] += 1
            label = f"{_LABEL[part.modality]} {counts[part.modality]}: " if add_vision_id else ""
            segments += [ControlText(f"{label}<|vision_start|>"), part, ControlText("<|vision_end|>")]
        segments.append(ControlText("<|im_end|>\n"))
    if add_generation_prompt:
        segments.append(ControlText("<|im_start|>assistant\n"))
    return segments


def _templated(
    messages: Sequence[Message], template: str, add_generation_prompt: bool, add_vision_id: bool
) -> list[Segment]:
    mark = f"\ue000{secrets.token_hex(8)}:"  # private-use character and 64 random bits: no client text holds it
    texts: list[str] = []
    slots: list[MediaSlot] = []

    def sentinel(text: str) -> str:
        texts.append(text)
        return f"{mark}{len(texts) - 1};"

    turns: list[dict[str, Any]] = []
    for message in messages:
        if all(isinstance(part, str) for part in message.parts):
            turns.append({"role": message.role, "content": sentinel("".join(map(str, message.parts)))})
            continue
        content: list[dict[str, str]] = []
        for part in message.parts:
            if isinstance(part, str):
                content.append({"type": "text", "text": sentinel(part)})
            else:
                slots.append(part)
                content.append({"type": part.modality, part.modality: ""})
        turns.append({"role": message.role, "content": content})
    try:
        text = _compiled(template).render(
            messages=turns, add_generation_prompt=add_generation_prompt, add_vision_id=add_vision_id
        )
    except TemplateError as error:
        raise TemplateFaultError(f"the model's chat template refuses this conversation: {error}") from error
    return _split(text, re.compile(re.escape(mark) + r"(\d+);"), texts, slots)


def _split(text: str, pattern: re.Pattern[str], texts: list[str], slots: list[MediaSlot]) -> list[Segment]:
    segments: list[Segment] = []
    seen: list[int] = []
    for number, piece in enumerate(pattern.split(text)):
        if number % 2:
            seen.append(int(piece))
            segments.append(ClientText(texts[seen[-1]]))
        else:
            segments.extend(_control(piece))
    placed = [segment for segment in segments if isinstance(segment, MediaSlot)]
    if seen != list(range(len(texts))) or [slot.modality for slot in placed] != [slot.modality for slot in slots]:
        raise TemplateFaultError("the model's chat template leaves out, repeats or reorders parts of this conversation")
    in_order = iter(slots)
    return [next(in_order) if isinstance(segment, MediaSlot) else segment for segment in segments]


def _control(text: str) -> Iterator[Segment]:
    """Control text with the template's media placeholders taken out as slots (numbered by the caller)."""
    for piece in _PLACEHOLDER_PATTERN.split(text):
        if piece in _MODALITY:
            yield MediaSlot(-1, _MODALITY[piece])
        elif piece:
            yield ControlText(piece)


def _reopened(segments: list[Segment]) -> list[Segment]:
    """The segments without what closes the last turn."""
    last = segments[-1]
    if not isinstance(last, ControlText) or "<|im_end|>" not in last.text:
        raise TemplateFaultError("the model's chat template does not close a turn with <|im_end|>")
    return _merged([*segments[:-1], ControlText(last.text.rpartition("<|im_end|>")[0])])


def _merged(segments: list[Segment]) -> list[Segment]:
    """Neighbouring control texts as one, empty texts left out."""
    merged: list[Segment] = []
    for segment in segments:
        if not isinstance(segment, MediaSlot) and not segment.text:
            continue
        if merged and isinstance(segment, ControlText) and isinstance(merged[-1], ControlText):
            merged[-1] = ControlText(merged[-1].text + segment.text)
        else:
            merged.append(segment)
    return merged


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = _raise_exception
    try:
        return environment.from_string(template)
    except TemplateError as error:
        raise TemplateFaultError(f"the model's chat template cannot be read: {error}") from error


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)
