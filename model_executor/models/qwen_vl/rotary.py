"""Qwen-7B's rotary embedding: a base that grows with the prompt, and queries that grow with the logarithm of positions.

Keys are cached rotated, so the base must be known for every token wherever it is computed. Positions say it: a prompt
whose base was raised b times has the positions from b times the context's length on, in a table of one block per base.
"""

from typing import Any

import torch
from torch import nn

from model_executor.kernels.mrope import cos_sin_table, inverse_frequencies, rotated
from model_executor.processor.dynamic_ntk import num_raises, query_scale, raised_base


class GrowingRotary(nn.Module):
    """The tables that all layers share."""

    def __init__(self, config: Any, max_model_len: int) -> None:
        """Prepare the tables.

        Args:
            config: the text config.
            max_model_len: context length in tokens.
        """
        super().__init__()
        self.cos_sin: torch.Tensor
        self.query_scale: torch.Tensor
        head_dim, trained = config.hidden_size // config.num_attention_heads, config.trained_tokens
        self.section = [head_dim // 2]
        bases = [
            raised_base(config.rope_parameters["rope_theta"], raises, head_dim)
            for raises in range(num_raises(max_model_len, trained) + 1)
        ]
        blocks = [cos_sin_table(max_model_len, inverse_frequencies(head_dim, base)) for base in bases]
        scale = torch.tensor([query_scale(position, trained) for position in range(max_model_len)], dtype=torch.float32)
        self.register_buffer("cos_sin", torch.cat(blocks), persistent=False)
        self.register_buffer("query_scale", scale.repeat(len(bases))[:, None, None], persistent=False)

    def forward(self, positions: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotated q [T, Nq, D], scaled, and k [T, Nk, D]; positions int64 [3, T], all axes alike."""
        axis = positions[0] if positions.dim() == 2 else positions
        q, k = rotated(q, k, axis, self.cos_sin, self.section)
        return (q * self.query_scale[axis]).to(q.dtype), k
