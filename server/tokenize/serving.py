"""Token ids of a text or a conversation, as a prompt has them; needs no engine. Slow for long texts."""

import dataclasses

from server.core.errors import BadRequestError
from server.generation.model_service import ServedModel
from server.prompt.conversation import read_conversation
from server.tokenize.protocol import TokenizeRequest


def token_ids(request: TokenizeRequest, model: ServedModel) -> list[int]:
    """The token ids of a request to tokenize.

    Raises:
        BadRequestError: the conversation has media or cannot be rendered, or the text is far too long.
    """
    if request.messages is None:
        assert request.prompt is not None  # one of them is there, by the request's own check
        return model.prompt_builder.text_ids(request.prompt, "prompt")
    conversation = read_conversation(request.messages)
    if conversation.media:
        param = conversation.media[0].param
        raise BadRequestError(
            f"'{param}' is an image or video; only text can be tokenized.", param=param, code="unsupported_value"
        )
    conversation = dataclasses.replace(
        conversation,
        add_generation_prompt=request.opens_turn,
        continue_final_message=request.continue_final_message,
        template_options=request.chat_template_kwargs,
    )
    return model.prompt_builder.chat(conversation, [], cache_salt=None, adapter=None).token_ids
