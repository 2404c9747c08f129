"""Turns a completions request into the form all APIs share. Pure."""

import uuid
from typing import Any

from server.completions.protocol import CompletionRequest
from server.generation.request import GenerationRequest
from server.prompt.plain import PlainPrompt

DEFAULT_MAX_TOKENS = 16
"""Longest answer where a request names none, as in the OpenAI API."""


def read_request(body: CompletionRequest, tenant: str) -> GenerationRequest:
    """The request in the form all APIs share.

    Args:
        body: what the client sent.
        tenant: whose caches may be used.
    """
    return GenerationRequest(
        id=f"cmpl-{uuid.uuid4().hex}",
        model=body.model,
        tenant=tenant,
        prompt=_prompts(body.prompt),
        sampling=body,
        max_output_tokens=body.max_answer_tokens,
        default_max_tokens=DEFAULT_MAX_TOKENS,
        num_top_logprobs=body.logprobs,
        echoes=body.echo,
        continuous_usage=body.continuous_usage,
    )


def _prompts(value: Any) -> tuple[PlainPrompt, ...]:
    if isinstance(value, str) or isinstance(value[0], int):
        return (PlainPrompt(value, "prompt"),)
    return tuple(PlainPrompt(prompt, f"prompt[{number}]") for number, prompt in enumerate(value))
