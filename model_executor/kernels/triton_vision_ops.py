"""The Triton body of `tessera::quick_gelu_`, for CUDA devices: every value is read once and written once."""

import torch
import triton
import triton.language as tl

BLOCK = 2048


def quick_gelu_(x: torch.Tensor) -> None:
    """As `kernels.vision_ops.quick_gelu_`.

    Raises:
        ValueError: `x` is not contiguous.
    """
    if not x.is_contiguous():
        raise ValueError("x must be contiguous")
    if size := x.numel():
        quick_gelu_block[(triton.cdiv(size, BLOCK),)](x, size, BLOCK=BLOCK)


@triton.jit  # type: ignore[untyped-decorator]
def quick_gelu_block(x, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Compute `BLOCK` values. Grid: [blocks]."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place, mask=place < size).to(tl.float32)
    tl.store(x + place, (value / (1.0 + tl.exp(-1.702 * value))).to(x.dtype.element_ty), mask=place < size)
