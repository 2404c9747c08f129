"""Responses of `GET /v1/models` and `GET /v1/models/{id}`."""

from typing import Literal

from pydantic import BaseModel


class MediaSizeLimits(BaseModel):
    """Sizes of files, so that a client can say that one is too large before it sends it."""

    max_image_bytes: int
    """Of an encoded image."""
    max_video_bytes: int
    """Of an encoded video."""


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
    description: str | None = None
    """What the model can do, in a sentence for people; where somebody has said so."""
    sampling_defaults: dict[str, float] | None = None
    """How the model samples where a request does not say; where its checkpoint says so."""
    limits: MediaSizeLimits
    """The largest media that are decoded."""


class ModelList(BaseModel):
    """The served models."""

    object: Literal["list"] = "list"
    data: list[Model]
