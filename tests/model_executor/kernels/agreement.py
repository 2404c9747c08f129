"""On which arguments the bodies of `tessera::mrope_` must agree with the plain-torch one, and how closely."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from model_executor.kernels import reference

MAX_POSITION = 1_000_000

Body = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, Sequence[int]], None]


@dataclass(frozen=True)
class Case:
    """Arguments of the operator, made afresh by each `arguments`.

    `layout` is where q and k lie: views of a `fused` qkv, `heads_first` memory seen tokens first, or an `odd` offset.
    `rows` is how positions come: a `separate` row for each axis, rows `cut` out of longer ones, one row `expanded` to
    all axes, or a `single` row [T].
    """

    num_tokens: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    section: tuple[int, ...]
    dtype: torch.dtype
    layout: str = "fused"
    rows: str = "separate"
    seed: int = 0

    def __str__(self) -> str:
        """A short name for a test."""
        heads = f"{self.num_heads}+{self.num_kv_heads}x{self.head_dim}"
        return f"{str(self.dtype).removeprefix('torch.')}-T{self.num_tokens}-{heads}-{len(self.section)}axes"

    def arguments(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, list[int]]:
        """The memory that q and k are views of, then the operator's arguments."""
        generator = torch.Generator().manual_seed(self.seed)
        num_heads = self.num_heads + 2 * self.num_kv_heads
        size = self.num_tokens * num_heads * self.head_dim
        memory = torch.randn(size + 1, generator=generator).to(self.dtype)
        if self.layout == "heads_first":
            qkv = memory[:size].view(num_heads, self.num_tokens, self.head_dim).transpose(0, 1)
        else:
            start = int(self.layout == "odd")
            qkv = memory[start : size + start].view(self.num_tokens, num_heads, self.head_dim)
        q, k = qkv[:, : self.num_heads], qkv[:, self.num_heads : self.num_heads + self.num_kv_heads]
        return memory, q, k, self._positions(generator), self._table(generator), list(self.section)

    def _positions(self, generator: torch.Generator) -> torch.Tensor:
        shape = (len(self.section), self.num_tokens + 3)
        longer = torch.randint(0, MAX_POSITION + 1, shape, generator=generator)
        longer[:, ::3] = longer[:1, ::3]  # every third token is text, alike on all axes
        if self.num_tokens:
            longer[-1, self.num_tokens - 1] = MAX_POSITION
        cut = longer[:, : self.num_tokens]
        if self.rows == "single":
            return cut[0]
        if self.rows == "expanded":
            return cut[0].expand(len(self.section), -1)
        return cut if self.rows == "cut" else cut.contiguous()

    def _table(self, generator: torch.Generator) -> torch.Tensor:
        """Rows for a million positions in four megabytes: each begins one number after the one before it."""
        width = 2 * sum(self.section)
        return torch.rand(MAX_POSITION + 1 + width, generator=generator).as_strided((MAX_POSITION + 1, width), (1, 1))


REAL_CASES = [
    Case(tokens, heads, kv_heads, head_dim, section, dtype, "fused", "cut")
    for dtype in (torch.float32, torch.bfloat16)
    for tokens, heads, kv_heads, head_dim, section in (
        (1, 12, 2, 128, (16, 24, 24)),
        (21, 12, 2, 128, (16, 24, 24)),
        (9, 28, 4, 128, (16, 24, 24)),
        (15, 16, 16, 80, (20, 20)),
        (5, 3, 1, 26, (3, 3, 5)),
        (0, 4, 2, 16, (2, 3, 3)),
    )
]
"""Shapes of 2B, 7B and the vision tower; an odd number of rotary pairs in a head that turns in part; no token."""


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any shape, layout and section, the vision tower's two among them."""
    section = tuple(draw(st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any)))
    num_kv_heads = draw(st.integers(1, 4))
    return Case(
        num_tokens=draw(st.integers(0, 7)),
        num_heads=num_kv_heads * draw(st.integers(1, 7)),
        num_kv_heads=num_kv_heads,
        head_dim=2 * sum(section) + draw(st.integers(0, 9)),
        section=section,
        dtype=draw(st.sampled_from([torch.float32, torch.bfloat16])),
        layout=draw(st.sampled_from(["fused", "heads_first", "odd"])),
        rows=draw(st.sampled_from(["separate", "cut", "expanded", "single"])),
        seed=draw(st.integers(0, 2**31)),
    )


def assert_agrees(body: Body, case: Case, device: str = "cpu") -> None:
    """A body equals the plain-torch one: to 1e-6 in float32, to one unit in the last place in bfloat16.

    Compared is the whole memory behind q and k, so that writing beside them is found too.
    """
    ours, expected = results(body, case, device)
    if case.dtype == torch.float32:
        assert torch.allclose(ours, expected, rtol=0, atol=1e-6), case
    else:
        assert _ulps_apart(ours, expected) <= 1, case


def results(body: Body, case: Case, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """The memory behind q and k as a body leaves it on a device, and as the plain-torch one does."""
    memory, q, k, positions, table, section = case.arguments()
    theirs = memory.to(device, copy=True)
    body(_same_view(theirs, q), _same_view(theirs, k), positions.to(device), table.to(device), section)
    reference.rotate_(q, k, positions, table, section)
    return theirs.cpu(), memory


def with_height_and_width_swapped(body: Body) -> Body:
    """A body with the commonest mistake: the last two sections take each other's positions."""

    def broken(
        q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, table: torch.Tensor, s: Sequence[int]
    ) -> None:
        axes = [*range(len(s) - 2), len(s) - 1, len(s) - 2]
        body(q, k, positions[axes] if positions.dim() == 2 else positions, table, s)

    return broken


def _same_view(memory: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
    return memory.as_strided(view.shape, view.stride(), view.storage_offset())


def _ulps_apart(one: torch.Tensor, other: torch.Tensor) -> int:
    """The largest distance in representable bfloat16 numbers."""
    bits = torch.stack([one.view(torch.int16), other.view(torch.int16)]).int()
    places = torch.where(bits < 0, -(bits & 0x7FFF), bits)  # of equal distance, and in order, across zero
    return int((places[0] - places[1]).abs().max())
