"""Responses of `GET /v1/models` and `GET /v1/models/{id}`."""

from typing import Literal

from pydantic import BaseModel


class Model(BaseModel):
    """A served model or adapter."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """Seconds since 1970."""
    owned_by: str = "tessera"
    max_model_len: int
    """Context length in tokens, prompt and answer together."""
    parent: str | None = None
    """Of an adapter: its base model."""


class ModelList(BaseModel):
    """The served models."""

    object: Literal["list"] = "list"
    data: list[Model]
