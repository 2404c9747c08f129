"""The decoder layer on a CPU: the same arithmetic with less around it.

A step of a small model takes less time to compute than Python takes to get from one operator to the next, through
modules, hooks and look-ups that are there for other devices. Here a layer calls vLLM's own CPU operators directly, and
what `text.py` looks up in every step is looked up once. Linear layers that are more than a matrix (quantized, with
adapters, split over ranks) are still called as modules.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl, CPUAttentionMetadata

from model_executor.models.shared.text import TextDecoderLayer

Linear = Callable[[torch.Tensor], torch.Tensor]


class CpuTextDecoderLayer(TextDecoderLayer):
    """As `TextDecoderLayer`, for a CPU and steps that are not compiled."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._direct: _Layer | None = None
        for module in (self.self_attn.qkv_proj, self.self_attn.o_proj, self.mlp.gate_up_proj, self.mlp.down_proj):
            if type(module.quant_method) is UnquantizedLinearMethod and module.params_dtype == torch.float32:
                module.quant_method = TransposedWeights()

    def forward(
        self, positions: torch.Tensor, hidden_states: torch.Tensor, residual: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `TextDecoderLayer.forward`; changes hidden states and residual in place."""
        if self._direct is None:  # not before weights are packed and adapters are there
            self._direct = _Layer(self)
        return self._direct(positions, hidden_states, residual)


class TransposedWeights(UnquantizedLinearMethod):
    """A float32 matrix, stored transposed: for few rows faster by a quarter than the packed form that vLLM takes."""

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """Store the matrix [inputs, outputs] and compute with it."""
        weight = layer.get_parameter("weight").data
        matrix = weight.t().contiguous()
        layer.weight = nn.Parameter(matrix.new_empty(0), requires_grad=False)

        def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            return torch.mm(x, matrix) if bias is None else torch.addmm(bias, x, matrix)

        setattr(layer, "cpu_linear", product)  # noqa: B010  # where vLLM looks for it


class _Layer:
    """What a layer consists of, ready to be called."""

    __slots__ = (
        *("act", "add_norm", "attend", "down", "eps", "gate_up", "heads", "norm", "norm_1", "norm_2", "o", "qkv"),
        *("rotate", "sizes"),
    )

    def __init__(self, layer: TextDecoderLayer) -> None:
        attention, mlp, kernels = layer.self_attn, layer.mlp, torch.ops._C
        self.attend, self.rotate = _PagedAttention(attention.attn), attention.rotary.forward
        self.qkv, self.o = _called(attention.qkv_proj), _called(attention.o_proj)
        self.gate_up, self.down = _called(mlp.gate_up_proj), _called(mlp.down_proj)
        self.norm_1, self.norm_2 = layer.input_layernorm.weight.data, layer.post_attention_layernorm.weight.data
        self.eps = layer.input_layernorm.variance_epsilon
        self.norm, self.add_norm = kernels.rms_norm.default, kernels.fused_add_rms_norm.default
        self.act = kernels.silu_and_mul.default
        self.sizes = [attention.num_heads, attention.num_kv_heads, attention.num_kv_heads]
        self.heads = (-1, sum(self.sizes), attention.head_dim)

    def __call__(
        self, positions: torch.Tensor, x: torch.Tensor, residual: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if residual is None:
            residual, x = x, torch.empty_like(x)
            self.norm(x, residual, self.norm_1, self.eps)
        else:
            self.add_norm(x, residual, self.norm_1, self.eps)
        q, k, v = torch.split_with_sizes(self.qkv(x).view(self.heads), self.sizes, 1)
        q, k = self.rotate(positions, q, k)
        x = self.o(self.attend(q, k, v))
        self.add_norm(x, residual, self.norm_2, self.eps)
        both = self.gate_up(x)
        product = both.new_empty((both.shape[0], both.shape[1] // 2))
        self.act(product, both)
        return self.down(product), residual


class _PagedAttention:
    """vLLM's attention over the KV cache, as its CPU backend calls it."""

    __slots__ = ("cache", "impl", "keys", "layer", "store", "values", "width", "with_cache")

    def __init__(self, layer: Attention) -> None:
        impl = layer.impl
        assert isinstance(impl, CPUAttentionBackendImpl)
        self.layer, self.impl = layer, impl
        self.cache: torch.Tensor | None = None
        self.width = layer.num_heads * layer.head_size
        self.store = torch.ops._C.cpu_attn_reshape_and_cache.default
        self.with_cache = torch.ops._C.cpu_attention_with_kv_cache.default

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attention [T, Nq * D] of q [T, Nq, D] to all keys of their sequences, k and v [T, Nk, D] among them."""
        layer, impl, context = self.layer, self.impl, get_forward_context()
        out = torch.empty(q.shape, dtype=q.dtype)
        if context.attn_metadata is None:  # warming up, without a cache
            return out.view(-1, self.width)
        if self.cache is not layer.kv_cache:
            self.cache = cache = layer.kv_cache
            num_blocks, num_heads, block_size, _ = cache.shape
            self.keys, self.values = cache.view((num_blocks, num_heads, 2 * block_size, -1)).chunk(2, dim=2)
        scales = layer._k_scale_float, layer._v_scale_float, impl.kv_cache_dtype
        self.store(k, v, self.keys, self.values, context.slot_mapping[layer.layer_name], layer.isa, *scales)
        metadata: CPUAttentionMetadata = context.attn_metadata[layer.layer_name]
        self.with_cache(
            q,
            self.keys,
            self.values,
            out,
            metadata.query_start_loc,
            metadata.seq_lens,
            impl.scale,
            metadata.causal,
            impl.alibi_slopes,
            impl.sliding_window,
            metadata.block_table,
            impl.logits_soft_cap,
            metadata.scheduler_metadata,
            impl.sinks,
            metadata.dynamic_causal,
            *scales,
        )
        return out.view(-1, self.width)


def _called(module: nn.Module) -> Linear:
    """How a linear layer is called: straight to its matrix where it is no more than that."""
    if isinstance(module, LinearBase):
        unquantized = isinstance(module.quant_method, UnquantizedLinearMethod)
        if unquantized and module.tp_size == 1:
            return partial(module.cpu_linear, weight=module.weight, bias=module.bias)

    def call(x: torch.Tensor) -> torch.Tensor:
        out = module(x)
        return out[0] if isinstance(out, tuple) else out

    return call
