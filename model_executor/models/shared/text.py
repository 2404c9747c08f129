"""The decoder layer of the language model: vLLM's paged attention and parallel linears, our rotary operator.

Equals vLLM's own Qwen2 layer except for the rotation. Attribute names equal checkpoint names, with vLLM's fused
`qkv_proj` and `gate_up_proj`.

Source: Qwen2 report (arXiv 2407.10671) section 2.2.1: pre-norm, RMSNorm, SwiGLU, grouped queries, biases on q, k, v.
"""

from typing import Any

import torch
from torch import nn
from vllm.config import CacheConfig
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.models.qwen2 import Qwen2MLP

from model_executor.checkpoint.positions import Yarn
from model_executor.kernels.mrope import cos_sin_table, inverse_frequencies, rotated, yarn_inverse_frequencies


class TextRotary(nn.Module):
    """The rotary embedding that all layers share: one table and the three sections."""

    def __init__(self, config: Any, num_rows: int, yarn: Yarn | None) -> None:
        """Prepare the table.

        Args:
            config: the checkpoint's text config.
            num_rows: positions that requests may reach (`mrope_positions.num_positions`).
            yarn: how the context was stretched; None for plain M-RoPE.

        Raises:
            ValueError: sections that do not fit the heads.
        """
        super().__init__()
        self.cos_sin: torch.Tensor
        rope = config.rope_parameters
        head_dim = config.hidden_size // config.num_attention_heads
        self.section = list(rope["mrope_section"])
        if sum(self.section) * 2 != head_dim:
            raise ValueError(f"mrope_section {self.section} does not add up to half of the head dimension {head_dim}")
        self.register_buffer("cos_sin", _table(num_rows, head_dim, rope["rope_theta"], yarn), persistent=False)

    def forward(self, positions: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotated q [T, Nq, D] and k [T, Nk, D], as `mrope.rotated`; positions int64 [3, T]."""
        return rotated(q, k, positions, self.cos_sin, self.section)


def _table(num_rows: int, head_dim: int, theta: float, yarn: Yarn | None) -> torch.Tensor:
    """Cosines and sines of every position, float32 [num_rows, head_dim]."""
    if yarn is None:
        return cos_sin_table(num_rows, inverse_frequencies(head_dim, theta))
    frequencies = yarn_inverse_frequencies(
        head_dim,
        theta,
        factor=yarn.factor,
        original_context=yarn.original_context,
        beta_fast=yarn.beta_fast,
        beta_slow=yarn.beta_slow,
    )
    return cos_sin_table(num_rows, frequencies, yarn.magnitude)


class TextAttention(nn.Module):
    """Grouped-query attention over vLLM's paged KV cache.

    Args:
        config: the text config.
        rotary: shared by all layers.
        cache_config: as in vLLM's `Qwen2Attention`.
        quant_config: as in vLLM's `Qwen2Attention`.
        prefix: name of this module in the model.
    """

    def __init__(
        self,
        config: Any,
        rotary: nn.Module,
        cache_config: CacheConfig | None,
        quant_config: QuantizationConfig | None,
        prefix: str,
    ) -> None:
        super().__init__()
        num_heads, num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        num_ranks = get_tensor_model_parallel_world_size()
        self.head_dim = config.hidden_size // num_heads
        self.num_heads = num_heads // num_ranks
        self.num_kv_heads = max(1, num_kv_heads // num_ranks)  # fewer heads than ranks: each rank keeps a copy
        self.rotary = rotary
        self.qkv_proj = QKVParallelLinear(
            config.hidden_size,
            self.head_dim,
            num_heads,
            num_kv_heads,
            quant_config=quant_config,
            prefix=f"{prefix}.qkv_proj",
            return_bias=False,
        )
        self.o_proj = RowParallelLinear(
            config.hidden_size,
            config.hidden_size,
            bias=False,
            quant_config=quant_config,
            prefix=f"{prefix}.o_proj",
            return_bias=False,
        )
        self.attn = Attention(
            self.num_heads,
            self.head_dim,
            self.head_dim**-0.5,
            num_kv_heads=self.num_kv_heads,
            cache_config=cache_config,
            quant_config=quant_config,
            prefix=f"{prefix}.attn",
        )

    def forward(self, positions: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Positions int64 [3, T], x [T, hidden]; returns [T, hidden]."""
        q_size, kv_size = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        q, k, v = self.qkv_proj(x).split([q_size, kv_size, kv_size], dim=-1)
        q, k = self.rotary(
            positions,
            q.unflatten(-1, (self.num_heads, self.head_dim)),
            k.unflatten(-1, (self.num_kv_heads, self.head_dim)),
        )
        return self.o_proj(self.attn(q.flatten(1), k.flatten(1), v))


class TextDecoderLayer(nn.Module):
    """Attention and MLP, each after an RMSNorm that also carries the residual sum.

    Args:
        rotary: shared by all layers.
        config: the text config; this and the following as vLLM's `Qwen2Model` passes them to its layers.
        cache_config: of the paged KV cache.
        quant_config: None if no weights are quantized.
        prefix: name of this module in the model.
    """

    def __init__(
        self,
        rotary: nn.Module,
        config: Any,
        cache_config: CacheConfig | None = None,
        quant_config: QuantizationConfig | None = None,
        prefix: str = "",
    ) -> None:
        super().__init__()
        self.self_attn = TextAttention(config, rotary, cache_config, quant_config, f"{prefix}.self_attn")
        self.mlp = Qwen2MLP(
            config.hidden_size, config.intermediate_size, config.hidden_act, quant_config, prefix=f"{prefix}.mlp"
        )
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self, positions: torch.Tensor, hidden_states: torch.Tensor, residual: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One layer: positions int64 [3, T], hidden states and residual [T, hidden]; returns the last two."""
        if residual is None:
            residual = hidden_states
            hidden_states = self.input_layernorm(hidden_states)
        else:
            hidden_states, residual = self.input_layernorm(hidden_states, residual)
        hidden_states = self.self_attn(positions, hidden_states)
        hidden_states, residual = self.post_attention_layernorm(hidden_states, residual)
        return self.mlp(hidden_states), residual
