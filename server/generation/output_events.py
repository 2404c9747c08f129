"""What an answer consists of while it is generated, whichever API it is for: plain values, no wire objects.

A request has one or more outputs, numbered from 0. Order of the events: `GenerationStart`; then, for each output and
mixed with those of the others, `OutputStart`, `PromptEcho` where it is requested, any number of `TextDelta` and of
calls (`ToolCallStart`, then `ArgumentsDelta`s), `Finish`; last `GenerationEnd`.
"""

from dataclasses import dataclass
from typing import Literal

from server.prompt.media_report import MediaReport

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class LikelyToken:
    """A token and how likely it was."""

    data: bytes
    """Its text in UTF-8; a character may be spread over several tokens."""
    logprob: float
    """Natural logarithm of the probability, at least -9999."""


@dataclass(frozen=True, slots=True)
class SampledToken(LikelyToken):
    """The token of one position."""

    top: tuple[LikelyToken, ...]
    """The most likely tokens there, most likely first."""
    is_special: bool
    """Whether it is a special token, which has no text unless special tokens are kept."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request costs so far, in tokens."""

    prompt_tokens: int
    image_tokens: int
    """Of the prompt's: images, without delimiters."""
    video_tokens: int
    """Of the prompt's: videos, without delimiters."""
    cached_tokens: int
    """Of the prompt's: taken from the prefix cache."""
    output_tokens: int


@dataclass(frozen=True, slots=True)
class GenerationStart:
    """The engine has started; whatever fails before is an error without any event."""

    usage: Usage
    media: tuple[MediaReport, ...]
    """What was done to the request's media."""


@dataclass(frozen=True, slots=True)
class UsageSoFar:
    """What the request has cost with the events that follow; only where that is requested."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class OutputStart:
    """An output begins."""

    index: int


@dataclass(frozen=True, slots=True)
class PromptEcho:
    """What an output continues; only where that is requested."""

    index: int
    text: str
    first: bytes = b""
    """The first token's text in UTF-8, where log-probabilities are requested; it has none."""
    logprobs: tuple[SampledToken, ...] = ()
    """The prompt's other tokens, where log-probabilities are requested."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text; empty where only log-probabilities have come."""

    index: int
    text: str
    logprobs: tuple[SampledToken, ...] = ()
    """Tokens since the last event of this output, where log-probabilities are requested."""


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A call of a function begins."""

    index: int
    call: int
    """Which of the output's calls, from 0."""
    call_id: str
    name: str
    logprobs: tuple[SampledToken, ...] = ()
    """As `TextDelta`'s."""


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """More of a call's arguments, as JSON text."""

    index: int
    call: int
    text: str
    logprobs: tuple[SampledToken, ...] = ()
    """As `TextDelta`'s."""


@dataclass(frozen=True, slots=True)
class Finish:
    """An output is complete."""

    index: int
    reason: FinishReason
    """length: the text, or a call's arguments, are cut."""
    stop_string: str | None = None
    """The client's stop string that has ended it, if one has."""


@dataclass(frozen=True, slots=True)
class GenerationEnd:
    """All outputs are complete."""

    usage: Usage


OutputEvent = (
    GenerationStart
    | UsageSoFar
    | OutputStart
    | PromptEcho
    | TextDelta
    | ToolCallStart
    | ArgumentsDelta
    | Finish
    | GenerationEnd
)
