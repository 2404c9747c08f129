"""The plain-torch body of `tessera::mrope_`: slow, obvious, and what every other body must equal.

Source: Su et al. 2021 (RoPE) for the rotation, in its non-interleaved form (first half of the rotary dimensions against
the second); Qwen2-VL report (arXiv 2409.12191) section 2.1 for the sections.
"""

from collections.abc import Sequence

import torch


def rotate_(
    q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, cos_sin: torch.Tensor, section: Sequence[int]
) -> None:
    """Rotate `q` and `k` in place; arguments and errors as in `kernels.mrope.mrope_`."""
    check(q, k, positions, cos_sin, section)
    half = cos_sin.shape[1] // 2
    cos, sin = gather(positions, cos_sin, section)
    for x in (q, k):
        first = x[..., :half].float()
        second = x[..., half : 2 * half].float()
        rotated = first * cos - second * sin, second * cos + first * sin  # both before either is overwritten
        x[..., :half], x[..., half : 2 * half] = rotated


def rotated(
    q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, cos_sin: torch.Tensor, section: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """New, contiguous q and k: copies that the body of the operator in place then rotates."""
    new = copies(q, k)
    torch.ops.tessera.mrope_(*new, positions, cos_sin, section)
    return new


def copies(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both, contiguous."""
    return q.clone(memory_format=torch.contiguous_format), k.clone(memory_format=torch.contiguous_format)


def gather(positions: torch.Tensor, cos_sin: torch.Tensor, section: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of every token, each rotary pair taken at the position of its section's axis.

    Args:
        positions: int64 [A, T], or [T] where all axes agree.
        cos_sin: float32 [max_pos, R].
        section: A sizes that add up to R/2.

    Returns:
        Two float32 [T, 1, R/2].
    """
    half = cos_sin.shape[1] // 2
    if positions.dim() == 1:
        rows = cos_sin.index_select(0, positions)  # indexing would take a negative position from the end
        return rows[:, None, :half], rows[:, None, half:]
    pieces = []
    start = 0
    for axis, size in enumerate(section):
        rows = cos_sin.index_select(0, positions[axis])
        pieces.append((rows[:, start : start + size], rows[:, half + start : half + start + size]))
        start += size
    cos = torch.cat([cos for cos, _ in pieces], dim=-1)
    sin = torch.cat([sin for _, sin in pieces], dim=-1)
    return cos[:, None], sin[:, None]


def check(
    q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, cos_sin: torch.Tensor, section: Sequence[int]
) -> None:
    """Raise `ValueError` for shapes and types that do not fit together; `csrc/mrope.cpp` refuses the same."""
    if q.dim() != 3 or k.dim() != 3 or q.shape[0] != k.shape[0] or q.shape[2] != k.shape[2] or q.dtype != k.dtype:
        raise ValueError(f"q {tuple(q.shape)} {q.dtype} and k {tuple(k.shape)} {k.dtype} do not fit together")
    if q.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"q and k must be float32 or bfloat16, not {q.dtype}")
    if q.stride(2) != 1 or k.stride(2) != 1:
        raise ValueError("the last axis of q and k must be contiguous")
    shape = tuple(cos_sin.shape)
    if len(shape) != 2 or shape[1] % 2 or shape[1] > q.shape[2] or cos_sin.dtype != torch.float32:
        raise ValueError(f"the table {shape} {cos_sin.dtype} does not fit heads of {q.shape[2]}")
    if cos_sin.stride(1) != 1:
        raise ValueError("the last axis of the table must be contiguous")
    if not section or min(section) < 0 or sum(section) * 2 != shape[1]:
        raise ValueError(f"the sections {list(section)} do not add up to half of {shape[1]}")
    if positions.shape not in ((q.shape[0],), (len(section), q.shape[0])) or positions.dtype != torch.int64:
        raise ValueError(f"positions {tuple(positions.shape)} {positions.dtype} do not fit {q.shape[0]} tokens")
