"""Answer of `POST /v1/chat/completions/preview`; its body is that of `POST /v1/chat/completions`."""

from typing import Literal

from server.api.base_models import ResponseModel
from server.prompt.media_report import MediaReport


class PreviewPart(ResponseModel):
    """A piece of the prompt."""

    type: Literal["control", "text", "image", "video"]
    """control: what the prompt format puts around what was sent, in which the names of control tokens are control
    tokens. text: what was sent, in which they are plain text."""
    tokens: int
    """A token over the border of two texts counts for the one it begins in."""
    text: str | None
    """Null for media."""
    param: str | None
    """The content part of an image or video, such as `messages[0].content[1].image_url`; null for texts."""


class TokenCounts(ResponseModel):
    """The prompt's tokens by kind of part."""

    control: int
    """The delimiters of media included."""
    text: int
    image: int
    video: int


class ChatPreview(ResponseModel):
    """What the model would get."""

    object: Literal["chat.completion.preview"]
    model: str
    prompt: str
    """The rendered prompt, with one placeholder where an image or video stands for all of its tokens."""
    prompt_tokens: int
    prompt_tokens_details: TokenCounts
    max_model_len: int
    """Context length in tokens, prompt and answer together."""
    parts: list[PreviewPart]
    """The prompt in pieces, in order."""
    media: list[MediaReport]
    """What was done to each image and video, in the order they were sent."""
