"""The operators `tessera::mrope_` and `tessera::mrope`: multimodal rotary embedding of queries and keys.

The first works in place. The second returns new tensors, for compiled code: what changes its arguments is given copies
of them there, of the whole product that queries, keys and values are views of.

What it does: declares the schemas, the fake bodies that tracing uses, and the bodies: compiled C++ on the CPU
(`native.py`), Triton on CUDA devices (`triton_mrope.py`), and plain torch wherever neither is to be had. What it does
not: build position ids (`model_executor/processor/mrope_positions.py`).

One operator serves the language model (three sections: time, height, width) and the vision tower (two: height,
width); they differ in their tables only.
"""

import math
from collections.abc import Sequence

import torch

from model_executor.kernels import native, reference

_LIBRARY = torch.library.Library("tessera", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "mrope_(Tensor(a!) q, Tensor(b!) k, Tensor positions, Tensor cos_sin, int[] section) -> ()",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_LIBRARY.impl("mrope_", reference.rotate_, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "mrope(Tensor q, Tensor k, Tensor positions, Tensor cos_sin, int[] section) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_LIBRARY.impl("mrope", reference.rotated, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
native.load()
# Asking for a device would initialize CUDA, after which a process cannot fork.
if torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
    from model_executor.kernels import triton_mrope

    _LIBRARY.impl("mrope_", triton_mrope.rotate_, "CUDA")  # type: ignore[no-untyped-call]
    _LIBRARY.impl("mrope", triton_mrope.rotated, "CUDA")  # type: ignore[no-untyped-call]


@torch.library.register_fake("tessera::mrope_", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _fake(
    q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, cos_sin: torch.Tensor, section: Sequence[int]
) -> None:
    """Nothing is returned and no shape changes."""


@torch.library.register_fake("tessera::mrope", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _fake_new(
    q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, cos_sin: torch.Tensor, section: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape)


def mrope_(
    q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, cos_sin: torch.Tensor, section: Sequence[int]
) -> None:
    """Rotate queries and keys in place, each rotary pair by the position on its section's axis.

    The arithmetic is float32 whatever the type of `q` and `k`. Dimensions of a head from R on stay as they are.

    Args:
        q: [T, Nq, D], float32 or bfloat16; a strided view is fine as long as the last axis is contiguous.
        k: [T, Nk, D], of the same type; q and k may be views of one fused tensor, but must not overlap.
        positions: int64 [A, T], or [T] where all axes agree; values in [0, max_pos). Rows may be strided.
        cos_sin: float32 [max_pos, R], R even and at most D: R/2 cosines, then R/2 sines (see `cos_sin_table`).
        section: A sizes, in rotary pairs, that add up to R/2.

    Raises:
        ValueError: shapes or types that do not fit together.
        IndexError: a position outside the table; on a CUDA device it makes its pairs NaN instead.
    """
    torch.ops.tessera.mrope_(q, k, positions, cos_sin, section)


def rotated(
    q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, cos_sin: torch.Tensor, section: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys rotated: the same tensors, changed in place, or in compiled code new ones.

    Arguments and errors as in `mrope_`.
    """
    if torch.compiler.is_compiling():
        new_q, new_k = torch.ops.tessera.mrope(q, k, positions, cos_sin, section)
        return new_q, new_k
    mrope_(q, k, positions, cos_sin, section)
    return q, k


def cos_sin_table(max_pos: int, inverse_frequencies: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
    """Cosines and sines of every position.

    Args:
        max_pos: rows; positions run from 0 to `max_pos - 1`.
        inverse_frequencies: float32 [R/2], radians per position of each rotary pair.
        factor: what all are multiplied by.

    Returns:
        float32 [max_pos, R]: cosines in the first half of a row, sines in the second.
    """
    angles = (
        torch.arange(max_pos, dtype=torch.float32, device=inverse_frequencies.device)[:, None] * inverse_frequencies
    )
    return torch.cat([angles.cos(), angles.sin()], dim=-1) * factor


def inverse_frequencies(rotary_dim: int, theta: float) -> torch.Tensor:
    """Radians per position of the rotary pairs of one axis: theta^(-2i/rotary_dim), float32 [rotary_dim/2].

    Source: Su et al. 2021 section 3.2.2.
    """
    return 1.0 / theta ** (torch.arange(0, rotary_dim, 2, dtype=torch.float32) / rotary_dim)


def yarn_inverse_frequencies(
    rotary_dim: int, theta: float, *, factor: float, original_context: float, beta_fast: float, beta_slow: float
) -> torch.Tensor:
    """Radians per position in a context that YaRN stretched, float32 [rotary_dim/2].

    Args:
        rotary_dim: as for `inverse_frequencies`.
        theta: as for `inverse_frequencies`.
        factor: how many times longer the context got.
        original_context: its length before, in tokens.
        beta_fast: pairs that turn so often within the original context stay as they are.
        beta_slow: pairs that turn less often are slowed down by `factor`; in between, both are blended linearly.

    Source: Peng et al. 2023, arXiv 2309.00071, section 3.2, definition 2.
    """

    def pair_that_turns(times: float) -> float:
        return rotary_dim * math.log(original_context / (times * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(pair_that_turns(beta_fast)), 0)
    last = min(math.ceil(pair_that_turns(beta_slow)), rotary_dim - 1)
    pairs = torch.arange(rotary_dim // 2, dtype=torch.float32)
    slowed = ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)
    plain = inverse_frequencies(rotary_dim, theta)
    return plain * (1 - slowed) + plain / factor * slowed
