"""Checks that prompt and answer fit the model's context length, and refuses what does not with the numbers. Pure."""

import unicodedata
from collections.abc import Sequence

from model_executor.processor.tokenizer import MediaPlaceholder, Segment, Tokenizer
from server.core.errors import BadRequestError

_PROBED_CHARS_PER_TOKEN = 16
"""Texts with more characters than this per token of context are checked before they are encoded."""
_SLACK_TOKENS = 1_000
"""How many tokens the cut of a text may at most add at its end; in truth a handful."""


def require_fit(
    num_prompt_tokens: int,
    num_answer_tokens: int | None,
    max_model_len: int,
    *,
    param: str = "messages",
    exact: bool = True,
) -> None:
    """Check that prompt and answer fit.

    Args:
        num_prompt_tokens: length of the prompt.
        num_answer_tokens: length of the answer the client requests; None where it names none, which takes one token.
        max_model_len: length of the context.
        param: the request field the prompt stands in.
        exact: whether the prompt's length is known, not only its lower bound.

    Raises:
        BadRequestError: they do not.
    """
    if num_prompt_tokens + (num_answer_tokens or 1) <= max_model_len:
        return
    # Clients tell this error from others by these words: "maximum context length is" and "prompt is too long".
    tokens = f"{'' if exact else 'at least '}{num_prompt_tokens} tokens in the messages"
    raise BadRequestError(
        f"This model's maximum context length is {max_model_len} tokens, and the prompt is too long: "
        f"{tokens} and {num_answer_tokens or 1} for the completion. "
        "Please reduce the length of the messages or completion.",
        param=param,
        code="context_length_exceeded",
    )


def check_context_length(
    segments: Sequence[Segment],
    num_media_tokens: Sequence[int],
    tokenizer: Tokenizer,
    max_model_len: int,
    *,
    param: str = "messages",
    num_answer_tokens: int | None = None,
) -> None:
    """Refuse a text far too long without encoding all of it, which would take minutes.

    Args:
        segments: the prompt.
        num_media_tokens: placeholders of each image or video.
        tokenizer: the model's.
        max_model_len: length of the context.
        param: the request field the prompt stands in.
        num_answer_tokens: as `require_fit`.

    Raises:
        BadRequestError: it cannot fit.
    """
    budget = _PROBED_CHARS_PER_TOKEN * max_model_len
    texts = [segment.text for segment in segments if not isinstance(segment, MediaPlaceholder)]
    if sum(map(len, texts)) <= budget:
        return
    # No token stands for more bytes than the longest one; the tokenizer may compose characters first.
    num_bytes = sum(len(unicodedata.normalize("NFC", text).encode()) for text in texts)
    least = num_bytes // tokenizer.max_token_bytes
    require_fit(least, num_answer_tokens, max_model_len, param=param, exact=False)
    beginning: list[Segment] = []
    for segment in segments:
        if isinstance(segment, MediaPlaceholder):
            beginning.append(segment)
        else:
            beginning.append(type(segment)(segment.text[:budget]))
            budget -= len(segment.text)
        if budget <= 0:
            break
    num_tokens = len(tokenizer.encode(beginning, num_media_tokens).token_ids)
    least = num_tokens - _SLACK_TOKENS
    require_fit(least, num_answer_tokens, max_model_len, param=param, exact=False)
