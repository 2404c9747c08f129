"""Turns a chat request into the form all APIs share. Pure."""

import dataclasses
import uuid

from server.chat.request import ChatCompletionRequest
from server.generation.grammar import JsonFormat, output_grammar
from server.generation.request import GenerationRequest
from server.prompt.conversation import read_conversation
from server.structured_output.protocol import ResponseFormat


def read_request(
    body: ChatCompletionRequest, tenant: str, *, default_max_tokens: int | None = None
) -> GenerationRequest:
    """The request in the form all APIs share.

    Args:
        body: what the client sent.
        tenant: whose caches may be used.
        default_max_tokens: longest answer where the client names none; None for what the context leaves.

    Raises:
        BadRequestError: a media part contradicts itself, or a format or a function's parameters cannot be enforced.
    """
    tools = body.toolset
    relaxed: list[str] = []
    conversation = read_conversation(body.messages)
    conversation = dataclasses.replace(
        conversation,
        media=body.limited(conversation.media),
        tools=tools,
        add_generation_prompt=body.opens_turn,
        continue_final_message=body.continue_final_message,
        add_vision_id=body.add_vision_id,
        template_options=body.chat_template_kwargs,
    )
    return GenerationRequest(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        model=body.model,
        tenant=tenant,
        prompt=conversation,
        sampling=body,
        max_output_tokens=body.max_answer_tokens,
        default_max_tokens=default_max_tokens,
        num_top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        continuous_usage=body.continuous_usage,
        grammar=output_grammar(_json_format(body.response_format), tools, body.structured_outputs, relaxed=relaxed),
        relaxed=tuple(relaxed),
    )


def _json_format(response_format: ResponseFormat | None) -> JsonFormat | None:
    if response_format is None or response_format.type == "text":
        return None
    if response_format.json_schema is None:
        return JsonFormat(None, "response_format")
    return JsonFormat(
        response_format.json_schema.schema_, "response_format.json_schema.schema", response_format.json_schema.strict
    )
