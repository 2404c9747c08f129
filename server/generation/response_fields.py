"""Objects that responses of several APIs share: token counts and log-probabilities, as OpenAI writes them."""

from collections.abc import Iterable

from server.api.base_models import ResponseModel
from server.generation import output_events as events


class TopLogprob(ResponseModel):
    """A likely token of one position."""

    token: str
    logprob: float
    """Natural logarithm of the probability, at least -9999."""
    bytes: list[int]
    """UTF-8 bytes of the token; a character may be spread over several tokens."""


class TokenLogprob(TopLogprob):
    """The token of one position, and the most likely ones."""

    top_logprobs: list[TopLogprob]


class PromptTokensDetails(ResponseModel):
    """Of the prompt's tokens."""

    cached_tokens: int
    """Taken from the prefix cache."""
    image_tokens: int
    """Of images, without delimiters."""
    video_tokens: int
    """Of videos, without delimiters."""


class Usage(ResponseModel):
    """What a request cost, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


def token_logprobs(tokens: Iterable[events.SampledToken]) -> list[TokenLogprob]:
    """Log-probabilities as Chat and Responses have them."""
    return [
        TokenLogprob(
            token=_text(token),
            logprob=token.logprob,
            bytes=list(token.data),
            top_logprobs=[
                TopLogprob(token=_text(likely), logprob=likely.logprob, bytes=list(likely.data)) for likely in token.top
            ],
        )
        for token in tokens
    ]


def usage(counts: events.Usage) -> Usage:
    """Token counts as Chat and Completions have them."""
    return Usage(
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.output_tokens,
        total_tokens=counts.prompt_tokens + counts.output_tokens,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=counts.cached_tokens, image_tokens=counts.image_tokens, video_tokens=counts.video_tokens
        ),
    )


def _text(token: events.LikelyToken) -> str:
    return token.data.decode("utf-8", "replace")
