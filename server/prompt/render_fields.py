"""Request fields for how a conversation's prompt ends: with a new turn of the assistant, or within the last one."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from server.api.base_models import RequestModel, at_most, conflict
from server.prompt.messages import AnyMessage

MAX_OPTIONS = 64
TemplateOptions = Annotated[dict[str, Any], Field(max_length=MAX_OPTIONS), at_most(MAX_OPTIONS)]
"""Variables of a chat template, by name."""


class Rendering(RequestModel):
    """The fields of every request that has a conversation rendered."""

    add_generation_prompt: bool | None = None
    """End the prompt with the opening of the assistant's turn; on unless `continue_final_message`."""
    continue_final_message: bool = False
    """Continue the last message, which is the assistant's, instead of answering it."""

    chat_template_kwargs: TemplateOptions = {}
    """Variables of the model's chat template; those it does not read are left out and reported."""

    @property
    def opens_turn(self) -> bool:
        """Whether the prompt ends with the opening of the assistant's turn."""
        opens_turn = self.add_generation_prompt
        return not self.continue_final_message if opens_turn is None else opens_turn

    def _require_one_end(self, messages: Sequence[AnyMessage]) -> None:
        """Check that the fields fit each other and the conversation; validators of the request call it.

        Raises:
            PydanticCustomError: they do not.
        """
        if self.continue_final_message:
            if self.add_generation_prompt:
                raise conflict("continue_final_message", "cannot be combined with 'add_generation_prompt'")
            if messages[-1].role != "assistant":
                raise conflict("continue_final_message", "needs a last message of the role 'assistant'")
