"""Qwen-7B's rotary base that grows with the prompt, and its logarithmic scale of queries. Pure.

Up to S tokens, those it was trained with, nothing differs from plain rotary embedding. A prompt of more than S, 2S, 4S
... tokens has its base raised once, twice, three times ..., for itself and for its answer. Keys are cached rotated, so
they can only be shared by prompts whose base was raised as often; a raised base has positions of its own.

Source: Qwen technical report (arXiv 2309.16609) section 2.3; the release's modeling code for the exact factors.
"""

import math


def num_raises(num_prompt_tokens: int, trained_tokens: int) -> int:
    """How often the base is raised: 0 up to `trained_tokens`, 1 up to twice as many, 2 up to four times, ..."""
    return max(0, math.ceil(math.log2(max(1, num_prompt_tokens) / trained_tokens)))


def raised_base(base: float, num_raises: int, head_dim: int) -> float:
    """The base after so many raises: NTK-aware scaling by 1, 3, 7, 15, ..."""
    scale = 2 ** (num_raises + 1) - 1
    return float(base * scale ** (head_dim / (head_dim - 2)))


def query_scale(position: int, trained_tokens: int) -> float:
    """What the query at a position, counted from 0, is multiplied by: log_S(position + 1), and never less than 1."""
    return max(1.0, math.log(position + 1) / math.log(trained_tokens)) if position else 1.0
