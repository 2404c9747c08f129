"""Texts and token ids into each other, as a prompt's are. Needs the tokenizer, not the engine. Slow for long texts."""

from collections.abc import Sequence

from model_executor.processor.tokenizer import Tokenizer, UserText
from server.chat.serving import ServedModel
from server.core.errors import BadRequestError
from server.prompt.builder import build_prompt
from server.prompt.context_length import refuse_hopeless
from server.prompt.conversation import read_conversation
from server.tokenize.protocol import TokenizeRequest


def text_ids(text: str, tokenizer: Tokenizer, *, max_model_len: int, param: str) -> list[int]:
    """Token ids of a client's text, in which nothing is a control token.

    Args:
        text: may be empty.
        tokenizer: the model's.
        max_model_len: length of the context; a text far beyond it is not encoded.
        param: the request field the text stands in.

    Raises:
        BadRequestError: the text is far too long.
    """
    segments = [UserText(text)]
    refuse_hopeless(segments, [], tokenizer, max_model_len, param=param)
    return tokenizer.encode(segments, []).token_ids


def require_known(token_ids: Sequence[int], tokenizer: Tokenizer, *, param: str) -> None:
    """Check that the model has all of these ids.

    Raises:
        BadRequestError: it lacks one, which is named.
    """
    for index, token_id in enumerate(token_ids):
        if token_id >= tokenizer.num_tokens:
            raise BadRequestError(
                f"'{param}[{index}]' is {token_id}; the model's ids are below {tokenizer.num_tokens}.",
                param=f"{param}[{index}]",
                code="invalid_value",
            )


def request_ids(request: TokenizeRequest, model: ServedModel) -> list[int]:
    """The token ids a request to tokenize asks for.

    Raises:
        BadRequestError: the conversation has media or cannot be rendered, or the text is far too long.
    """
    max_model_len = model.engine.max_model_len
    if request.messages is None:
        assert request.prompt is not None  # one of them is there, by the request's own check
        return text_ids(request.prompt, model.tokenizer, max_model_len=max_model_len, param="prompt")
    conversation = read_conversation(request.messages)
    if conversation.media:
        param = conversation.media[0].param
        raise BadRequestError(
            f"'{param}' is a medium; only text is tokenized here.", param=param, code="unsupported_value"
        )
    return build_prompt(
        conversation.turns,
        [],
        model.tokenizer,
        template=model.chat_template,
        add_generation_prompt=request.opens_turn,
        continue_final_message=request.continue_final_message,
        add_vision_id=False,
        max_model_len=max_model_len,
        cache_salt=None,
    ).token_ids
