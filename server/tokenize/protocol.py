"""Bodies and answers of `POST /tokenize` and `POST /detokenize`, named as vLLM names them."""

from typing import Annotated

from pydantic import Field, model_validator

from server.api.base_models import (
    MAX_MESSAGES,
    MAX_TOKEN_IDS,
    ModelRequest,
    ResponseModel,
    Unsupported,
    bounded,
    conflict,
)
from server.prompt.messages import AnyMessage
from server.prompt.render_fields import Rendering
from server.prompt.tool_messages import require_answered_calls


class TokenizeRequest(Rendering, ModelRequest):
    """A text, or a conversation of text, to turn into token ids; the fields for a prompt's end need `messages`."""

    prompt: str | None = None
    """A text; the names of control tokens in it are plain text."""
    messages: Annotated[list[AnyMessage], bounded(MAX_MESSAGES, least=1)] | None = None
    """A conversation, rendered as for an answer; instead of `prompt`."""
    add_special_tokens: bool | None = None
    """Add what the tokenizer puts around every text; Qwen's puts nothing there, so both values give the same ids."""

    chat_template: Unsupported = None
    mm_processor_kwargs: Unsupported = None
    tools: Unsupported = None

    @model_validator(mode="after")
    def _agree(self) -> "TokenizeRequest":
        if self.messages is None:
            if self.prompt is None:
                raise conflict("prompt", "is missing, and so is 'messages'")
            for name in ("add_generation_prompt", "continue_final_message", "chat_template_kwargs"):
                if name in self.model_fields_set:
                    raise conflict(name, "is only allowed with 'messages'")
            return self
        if self.prompt is not None:
            raise conflict("prompt", "cannot be combined with 'messages'")
        self._require_one_end(self.messages)
        require_answered_calls(self.messages)
        return self


class TokenizeResponse(ResponseModel):
    """The token ids."""

    count: int
    """How many there are."""
    max_model_len: int
    """Context length in tokens, prompt and answer together."""
    tokens: list[int]


class DetokenizeRequest(ModelRequest):
    """Token ids to turn into text."""

    tokens: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], bounded(MAX_TOKEN_IDS)]
    """Ids of the model, special ones included."""


class DetokenizeResponse(ResponseModel):
    """The text."""

    prompt: str
    """Special tokens stand by their names; bytes that are no whole character come out as U+FFFD."""
