"""What a client is told whose request cannot be served."""

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from server.api.validation import refusal
from server.core.errors import ApiError, BadRequestError


def refused(act: Callable[..., object], *arguments: object, **named: object) -> ApiError:
    """The refusal of a call that must be refused; it says which field is meant, pydantic's as the API words it."""
    with pytest.raises((BadRequestError, ValidationError)) as caught:
        act(*arguments, **named)
    error = refusal(caught.value) if isinstance(caught.value, ValidationError) else caught.value
    assert isinstance(error, ApiError)
    assert error.param is None or f"'{error.param}'" in error.message
    return error
