"""The Triton body of `tessera::mrope_`, for CUDA devices.

One program rotates a block of heads of one token and looks its cosines and sines up itself: it reads the token's
position on every axis, and from the table only the row pieces that its sections need.

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

HEADS_PER_PROGRAM = 8


def rotate_(
    q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, cos_sin: torch.Tensor, section: Sequence[int]
) -> None:
    """Rotate `q` and `k` in place; arguments and `ValueError`s as in `kernels.mrope.mrope_`."""
    reference.check(q, k, positions, cos_sin, section)
    num_tokens, half = q.shape[0], cos_sin.shape[1] // 2
    query_blocks = triton.cdiv(q.shape[1], HEADS_PER_PROGRAM)
    key_blocks = triton.cdiv(k.shape[1], HEADS_PER_PROGRAM)
    if not num_tokens * (query_blocks + key_blocks) * half:
        return
    rotate_block[(num_tokens, query_blocks + key_blocks)](
        q,
        k,
        positions,
        cos_sin,
        q.shape[1],
        k.shape[1],
        cos_sin.shape[0],
        q.stride(0),
        q.stride(1),
        k.stride(0),
        k.stride(1),
        positions.stride(0) if positions.dim() == 2 else 0,
        positions.stride(-1),
        cos_sin.stride(0),
        QUERY_BLOCKS=query_blocks,
        STARTS=tuple(accumulate(section[:-1], initial=0)) if positions.dim() == 2 else (0,),
        HALF=half,
        PADDED_HALF=triton.next_power_of_2(half),
        HEADS=HEADS_PER_PROGRAM,
        enable_fp_fusion=False,  # a fused multiply-add would differ from the reference body in the last bit
    )


@triton.jit  # type: ignore[untyped-decorator]
def rotate_block(  # type: ignore[no-untyped-def]
    q,
    k,
    positions,
    table,
    num_heads,
    num_kv_heads,
    num_rows,
    q_token_stride,
    q_head_stride,
    k_token_stride,
    k_head_stride,
    axis_stride,
    position_stride,
    row_stride,
    QUERY_BLOCKS: tl.constexpr,
    STARTS: tl.constexpr,
    HALF: tl.constexpr,
    PADDED_HALF: tl.constexpr,
    HEADS: tl.constexpr,
):
    """Rotate `HEADS` heads of one token: queries in the first `QUERY_BLOCKS` blocks, then keys.

    Grid: [T, query blocks + key blocks]. Strides count elements.
    """
    token = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    pair = tl.arange(0, PADDED_HALF)
    position = tl.zeros([PADDED_HALF], tl.int64)
    for axis in tl.static_range(len(STARTS)):  # a section reaches to where the next one takes over
        axis_position = tl.load(positions + axis * axis_stride + token * position_stride)
        position = tl.where(pair >= STARTS[axis], axis_position, position)
    inside = (pair < HALF) & (position >= 0) & (position < num_rows)
    row = table + position * row_stride + pair
    cosine = tl.load(row, mask=inside, other=float("nan"))[None, :]
    sine = tl.load(row + HALF, mask=inside, other=float("nan"))[None, :]
    if block < QUERY_BLOCKS:
        rotate_heads(q + token * q_token_stride, block, num_heads, q_head_stride, pair, cosine, sine, HALF, HEADS)
    else:
        block -= QUERY_BLOCKS
        rotate_heads(k + token * k_token_stride, block, num_kv_heads, k_head_stride, pair, cosine, sine, HALF, HEADS)


@triton.jit  # type: ignore[untyped-decorator]
def rotate_heads(  # type: ignore[no-untyped-def]
    token, block, num_heads, head_stride, pair, cosine, sine, HALF: tl.constexpr, HEADS: tl.constexpr
):
    """Rotate block `block` of one token's heads; `token` points at its first, `cosine` and `sine` are [1, pairs]."""
    head = (block * HEADS + tl.arange(0, HEADS))[:, None]
    mask = (head < num_heads) & (pair[None, :] < HALF)
    first = token + head.to(tl.int64) * head_stride + pair[None, :]
    second = first + HALF
    a = tl.load(first, mask=mask).to(tl.float32)
    b = tl.load(second, mask=mask).to(tl.float32)
    tl.store(first, (a * cosine - b * sine).to(token.dtype.element_ty), mask=mask)
    tl.store(second, (b * cosine + a * sine).to(token.dtype.element_ty), mask=mask)
