"""The body of `POST /v1/completions`, and its answer: one object, whole or as the events of a stream."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from model_executor.engine import FinishReason
from server.api.base_models import MAX_TOKEN_IDS, ModelRequest, ResponseModel, Unsupported, bounded
from server.generation.response_fields import Usage
from server.generation.sampling_fields import SamplingFields, StreamFields

MAX_PROMPTS = 128
"""Most prompts of one request."""

_TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], bounded(MAX_TOKEN_IDS, least=1)]


def _prompt_form(value: Any) -> str:
    if not isinstance(value, list):
        return "<text>"
    if value and isinstance(value[0], list):
        return "<ids_list>"
    return "<ids>" if value and isinstance(value[0], int) else "<texts>"


class CompletionRequest(SamplingFields, StreamFields, ModelRequest):
    """Text to continue, and how."""

    prompt: Annotated[
        Annotated[str, Tag("<text>")]
        | Annotated[list[str], bounded(MAX_PROMPTS, least=1), Tag("<texts>")]
        | Annotated[_TokenIds, Tag("<ids>")]
        | Annotated[list[_TokenIds], bounded(MAX_PROMPTS, least=1), Tag("<ids_list>")],
        Discriminator(_prompt_form),
    ]
    """What to continue: a text or its token ids, or a list of either. The names of control tokens in texts are text."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest answer, in tokens. Unset: 16, or what the context leaves."""
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """Transformers' name of `max_tokens`, which wins."""
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    """Report the log-probability of each token of the answer, and of this many of the most likely ones."""
    best_of: Annotated[int, Field(ge=1)] | None = None
    """Accepted where it equals `n`."""
    echo: bool = False
    """Begin the answer with the prompt; with `logprobs`, its tokens have log-probabilities, too."""
    user: str | None = None
    """Accepted; cannot apply to a model on one's own machine."""
    suffix: Unsupported = None
    response_format: Unsupported = None
    structured_outputs: Unsupported = None
    prompt_embeds: Unsupported = None
    mm_processor_kwargs: Unsupported = None
    media_io_kwargs: Unsupported = None

    @property
    def max_answer_tokens(self) -> int | None:
        """The longest answer the client requests, or None."""
        return self.max_new_tokens if self.max_tokens is None else self.max_tokens

    @model_validator(mode="after")
    def _agree(self) -> "CompletionRequest":
        self._require_min_tokens_within(self.max_answer_tokens)
        if self.best_of is not None and self.best_of != self.n:
            raise PydanticCustomError(
                "unsupported_value", "is not supported by this server unless it equals 'n'", {"param": "best_of"}
            )
        return self


class CompletionLogprobs(ResponseModel):
    """Log-probabilities of a choice, or of a chunk of it; all lists have an entry per token.

    With `echo`, the prompt's tokens come first.
    """

    tokens: list[str]
    """A token that is no whole character is written as `bytes:` and its bytes."""
    token_logprobs: list[float | None]
    """Natural logarithms of the probabilities, at least -9999; null for the first token of a prompt."""
    top_logprobs: list[dict[str, float] | None]
    """The most likely tokens, and the one that is there; null for the first token of a prompt."""
    text_offset: list[int]
    """Where each token begins in the choice's whole text, in characters (Unicode code points)."""


class CompletionChoice(ResponseModel):
    """One answer, or a chunk of it; the `n` answers of the first prompt come first, then those of the second."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None
    """null in all chunks but a choice's last."""


class Completion(ResponseModel):
    """The whole answer, or one event of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    """Seconds since 1970; the same in all events."""
    model: str
    choices: list[CompletionChoice]
    """Empty in the last event with `include_usage`."""
    usage: Usage | None = None
    """In a stream only with `include_usage`: null in all events but the last."""
