# mypy: no-warn-return-any
"""Attention inside slices of any sizes as one call of vLLM's FlashAttention, on GPUs.

Torch has no such call for slices of different sizes, and on recent cards an older FlashAttention than vLLM brings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import torch


@dataclass(frozen=True, slots=True)
class Spans:
    """Where the slices of a pack begin and end, as FlashAttention takes it."""

    bounds: torch.Tensor
    """int32 [slices + 1], on the device: the first patch of every slice, then the number of all."""
    longest: int
    """Patches of the largest slice."""
    version: int
    """Of FlashAttention."""

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """As `kernels.vision_ops.attend`, bfloat16 only."""
        from vllm.v1.attention.backends.fa_utils import flash_attn_varlen_func

        return flash_attn_varlen_func(
            q,
            k,
            v,
            max_seqlen_q=self.longest,
            cu_seqlens_q=self.bounds,
            max_seqlen_k=self.longest,
            cu_seqlens_k=self.bounds,
            causal=False,
            fa_version=self.version,
        )


def spans_of(sizes: Sequence[int], device: torch.device, dtype: torch.dtype, head_dim: int) -> Spans | None:
    """The slices of `sizes` patches for FlashAttention; None where it cannot be used."""
    if device.type != "cuda" or dtype != torch.bfloat16 or (version := _version(head_dim)) is None:
        return None
    bounds = torch.tensor([*accumulate(sizes, initial=0)], dtype=torch.int32, pin_memory=True)
    return Spans(bounds.to(device, non_blocking=True), max(sizes), version)


@cache
def _version(head_dim: int) -> int | None:
    """Of FlashAttention for this card and heads; None: this vLLM has none."""
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends.fa_utils import get_flash_attn_version

    return get_flash_attn_version(head_size=head_dim) if current_platform.is_cuda() else None
