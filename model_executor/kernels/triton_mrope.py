"""The Triton bodies of `tessera::mrope_` and `tessera::mrope`, for CUDA devices.

One program rotates up to `HEADS_PER_PROGRAM` heads of one token, queries and keys alike, and looks its cosines and
sines up itself: it reads the token's position on every axis, and from the table only the row pieces that its sections
need. With two warps a thread moves 16 bytes at a time in bfloat16 as in float32; 12+2 heads are one program, 28+4 two.

Bytes moved a token and layer, for N = Nq + Nk heads, D = R = 128 and b bytes an element. This kernel and vLLM's
(`_triton_mrope_forward` of 0.32) alike read N·D·b bytes of queries and keys and write as many: 16 KiB together for the
7B model in bfloat16. For cosines and sines vLLM first gathers the rows of all three axes into a new [3, T, R] tensor
(3·R·b read, 3·R·b written), then, the halves of that being strided, copies both (as much again), and its kernel reads
R·b of them: 13·R·b bytes, 3.25 KiB, in four launches. Here each block of heads reads 512 bytes of the float32
table and 24 of positions, from cache after the first block, in one launch, and nothing is allocated.

Positions are not checked on the device, since reporting one would stall the stream. One outside the table reads nothing
and makes its pairs NaN, where the other bodies raise.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
import triton
import triton.language as tl

from model_executor.kernels import reference

HEADS_PER_PROGRAM = 16
NUM_WARPS = 2
VARYING = ["positions", "num_rows", "axis_stride", "position_stride"]
"""What differs from step to step: a kernel of its own for each would be compiled while requests wait."""


def rotate_(
    q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, cos_sin: torch.Tensor, section: Sequence[int]
) -> None:
    """Rotate `q` and `k` in place; arguments and `ValueError`s as in `kernels.mrope.mrope_`."""
    reference.check(q, k, positions, cos_sin, section)
    _launch(q, k, q, k, positions, cos_sin, section)


def rotated(
    q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, cos_sin: torch.Tensor, section: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """New, contiguous q and k; arguments and `ValueError`s as in `kernels.mrope.mrope_`."""
    reference.check(q, k, positions, cos_sin, section)
    if cos_sin.shape[1] < q.shape[2]:  # what is not rotated has to be copied
        new = reference.copies(q, k)
        _launch(*new, *new, positions, cos_sin, section)
    else:
        new = q.new_empty(q.shape), k.new_empty(k.shape)
        _launch(q, k, *new, positions, cos_sin, section)
    return new


def _launch(
    q: torch.Tensor,
    k: torch.Tensor,
    new_q: torch.Tensor,
    new_k: torch.Tensor,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    section: Sequence[int],
) -> None:
    num_tokens, half = q.shape[0], cos_sin.shape[1] // 2
    num_blocks = triton.cdiv(q.shape[1] + k.shape[1], HEADS_PER_PROGRAM)
    if not num_tokens * num_blocks * half:
        return
    rotate_block[(num_tokens, num_blocks)](
        q,
        k,
        new_q,
        new_k,
        positions,
        cos_sin,
        q.shape[1],
        k.shape[1],
        cos_sin.shape[0],
        q.stride(0),
        q.stride(1),
        k.stride(0),
        k.stride(1),
        new_q.stride(0),
        new_q.stride(1),
        new_k.stride(0),
        new_k.stride(1),
        positions.stride(0) if positions.dim() == 2 else 0,
        positions.stride(-1),
        cos_sin.stride(0),
        STARTS=tuple(accumulate(section[:-1], initial=0)) if positions.dim() == 2 else (0,),
        HALF=half,
        PADDED_HALF=triton.next_power_of_2(half),
        HEADS=min(HEADS_PER_PROGRAM, triton.next_power_of_2(q.shape[1] + k.shape[1])),
        num_warps=NUM_WARPS,
        enable_fp_fusion=False,  # a fused multiply-add would differ from the reference body in the last bit
    )


@triton.jit(do_not_specialize=VARYING)  # type: ignore[untyped-decorator]
def rotate_block(  # type: ignore[no-untyped-def]
    q,
    k,
    new_q,
    new_k,
    positions,
    table,
    num_heads,
    num_kv_heads,
    num_rows,
    q_token_stride,
    q_head_stride,
    k_token_stride,
    k_head_stride,
    new_q_token_stride,
    new_q_head_stride,
    new_k_token_stride,
    new_k_head_stride,
    axis_stride,
    position_stride,
    row_stride,
    STARTS: tl.constexpr,
    HALF: tl.constexpr,
    PADDED_HALF: tl.constexpr,
    HEADS: tl.constexpr,
):
    """Rotate `HEADS` heads of one token, counted through queries and then keys, into `new_q` and `new_k`.

    Grid: [T, blocks of heads]. Strides count elements. The new ones may be the old ones.
    """
    token = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, PADDED_HALF)
    position = tl.zeros([PADDED_HALF], tl.int64)
    for axis in tl.static_range(len(STARTS)):  # a section reaches to where the next one takes over
        axis_position = tl.load(positions + axis * axis_stride + token * position_stride)
        position = tl.where(pair >= STARTS[axis], axis_position, position)
    inside = (pair < HALF) & (position >= 0) & (position < num_rows)
    row = table + position * row_stride + pair
    cosine = tl.load(row, mask=inside, other=float("nan"))[None, :]
    sine = tl.load(row + HALF, mask=inside, other=float("nan"))[None, :]

    head = (tl.program_id(1) * HEADS + tl.arange(0, HEADS)).to(tl.int64)[:, None]
    kv_head = head - num_heads
    of_queries = kv_head < 0
    mask = (kv_head < num_kv_heads) & (pair[None, :] < HALF)
    old = tl.where(
        of_queries,
        q + token * q_token_stride + head * q_head_stride + pair[None, :],
        k + token * k_token_stride + kv_head * k_head_stride + pair[None, :],
    )
    new = tl.where(
        of_queries,
        new_q + token * new_q_token_stride + head * new_q_head_stride + pair[None, :],
        new_k + token * new_k_token_stride + kv_head * new_k_head_stride + pair[None, :],
    )
    first = tl.load(old, mask=mask).to(tl.float32)
    second = tl.load(old + HALF, mask=mask).to(tl.float32)
    element = new_q.dtype.element_ty
    tl.store(new, (first * cosine - second * sine).to(element), mask=mask)
    tl.store(new + HALF, (second * cosine + first * sine).to(element), mask=mask)
