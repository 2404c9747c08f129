"""A prompt without turns: a text, or token ids, as Completions and `/tokenize` take them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.core.errors import BadRequestError


@dataclass(frozen=True, slots=True)
class PlainPrompt:
    """A text or its token ids, to be continued as it stands."""

    source: str | list[int]
    """In a text, the names of special tokens are plain text."""
    param: str
    """The request field it stands in, for errors: `prompt[1]`."""


def check_token_ids(token_ids: Iterable[tuple[str, int]], num_tokens: int) -> None:
    """Check that the model has all of these ids.

    Args:
        token_ids: each with its request field.
        num_tokens: valid ids are below it.

    Raises:
        BadRequestError: it lacks one, which is named.
    """
    for param, token_id in token_ids:
        if token_id >= num_tokens:
            raise BadRequestError(
                f"'{param}' has the token id {token_id}; the model's ids are below {num_tokens}.",
                param=param,
                code="invalid_value",
            )
