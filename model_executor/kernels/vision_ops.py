"""The operators of the vision tower: `tessera::attend`, attention inside temporal slices, and `tessera::quick_gelu_`.

What it does: declares the schemas and the plain-torch bodies, which run on processors without the instructions that
`csrc/tower.cpp` needs, on GPUs where `triton_vision_ops.py` has none, and as what the others must equal. The rotation
is `mrope.py`'s.
"""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch.nn import functional

from model_executor.kernels import native

_LIBRARY = torch.library.Library("tessera", "FRAGMENT")  # type: ignore[no-untyped-call]


def attend_plainly(out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sizes: Sequence[int]) -> None:
    """The plain-torch body of `attend`."""
    check(out, q, k, v, sizes)
    start = 0
    for size, same in groupby(sizes):
        num_slices = len(list(same))
        stop = start + num_slices * size
        # [slices, heads, patches, head_dim]: slices of one size are one batch, and no P x P matrix is ever made.
        shape = (num_slices, size, *q.shape[1:])
        queries, keys, values = (x[start:stop].view(shape).transpose(1, 2) for x in (q, k, v))
        attended = functional.scaled_dot_product_attention(queries, keys, values)
        out[start:stop] = attended.transpose(1, 2).flatten(0, 1)
        start = stop


def quick_gelu_plainly_(x: torch.Tensor) -> None:
    """The plain-torch body of `quick_gelu_`."""
    if not x.is_contiguous():
        raise ValueError("x must be contiguous")
    x.mul_((1.702 * x).sigmoid_())


def check(out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sizes: Sequence[int]) -> None:
    """Raise `ValueError` for shapes and types that do not fit together; `csrc/tower.cpp` refuses the same."""
    shapes = {(x.shape, x.dtype) for x in (out, q, k, v)}
    if q.dim() != 3 or len(shapes) > 1 or any(x.stride(2) != 1 for x in (out, q, k, v)):
        raise ValueError("out, q, k and v do not fit together, or their last axis is not contiguous")
    if q.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError("q, k and v must be float32 or bfloat16")
    if q.shape[2] % 2:
        raise ValueError("the head dimension must be even")
    if sum(sizes) != q.shape[0] or min(sizes, default=1) < 1:
        raise ValueError("the slices do not add up to the patches, or one has none")


_LIBRARY.define(  # type: ignore[no-untyped-call]
    "attend(Tensor(a!) out, Tensor q, Tensor k, Tensor v, int[] sizes) -> ()", tags=(torch.Tag.pt2_compliant_tag,)
)
_LIBRARY.define("quick_gelu_(Tensor(a!) x) -> ()", tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
_LIBRARY.impl("attend", attend_plainly, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
_LIBRARY.impl("quick_gelu_", quick_gelu_plainly_, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
native.load()
if torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
    from model_executor.kernels import triton_vision_ops

    _LIBRARY.impl("quick_gelu_", triton_vision_ops.quick_gelu_, "CUDA")  # type: ignore[no-untyped-call]


@torch.library.register_fake("tessera::attend", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _fake_attend(out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sizes: Sequence[int]) -> None:
    """Nothing is returned and no shape changes."""


@torch.library.register_fake("tessera::quick_gelu_", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _fake_quick_gelu(x: torch.Tensor) -> None:
    """As above."""


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Full attention of every patch to those of its own slice, scaled by the root of the head dimension.

    Args:
        q: [P, N, D], float32 or bfloat16, D even; a strided view is fine as long as the last axis is contiguous.
        k: as `q`.
        v: as `q`.
        sizes: patches of each slice, in order; they add up to P.

    Returns:
        [P, N, D], contiguous, of the type of `q`.

    Raises:
        ValueError: shapes, types or sizes that do not fit together.
    """
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    torch.ops.tessera.attend(out, q, k, v, sizes)
    return out


def quick_gelu_(x: torch.Tensor) -> torch.Tensor:
    """QuickGELU, x * sigmoid(1.702 x), in place; x contiguous, float32 or bfloat16. Returns it."""
    torch.ops.tessera.quick_gelu_(x)
    return x
