"""Our M-RoPE beside vLLM's and beside copying q and k, the least an in-place rotation can cost.

Run: `python -m benchmarks.mrope [--seconds S] [--device cuda]`. On a GPU all three are replayed from CUDA graphs, and
vLLM's is its Triton kernel with the gathering of cosines and sines that it needs. Medians of interleaved rounds, so
that what else the machine does falls on all three alike. The copy goes into tensors that are there already. Ratios
are what to quote.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.rotary_embedding.mrope import MRotaryEmbedding

from model_executor.kernels import native
from model_executor.kernels.mrope import cos_sin_table, inverse_frequencies, mrope_
from model_executor.processor.geometry import Grid
from model_executor.processor.mrope_positions import MediaSpan, mrope_positions

HEAD_DIM, SECTION, THETA = 128, [16, 24, 24], 1_000_000.0
HEADS = {"2B": (12, 2), "7B": (28, 4)}
"""Query heads and key heads."""
TOKENS = (1, 16, 512, 4096, 16384)
MAX_POSITION = 32_768
TARGET_ROUND_S = 0.002
CALLS_PER_GRAPH = 200
"""So many that starting and awaiting a graph counts for nothing."""


@dataclass(frozen=True)
class Row:
    """Median seconds of one call."""

    model: str
    dtype: torch.dtype
    num_tokens: int
    ours_s: float
    vllm_s: float
    copy_s: float

    def __str__(self) -> str:
        """One line of the table; times in microseconds."""
        name = f"{self.model} {str(self.dtype).removeprefix('torch.')} T={self.num_tokens}"
        times = "".join(f"{seconds * 1e6:12.1f}" for seconds in (self.ours_s, self.vllm_s, self.copy_s))
        return f"{name:24}{times}{self.vllm_s / self.ours_s:9.1f}x{self.ours_s / self.copy_s:9.2f}x"


HEADER = f"{'µs':24}{'tessera':>12}{'vLLM':>12}{'copy':>12}{'vLLM/us':>10}{'us/copy':>10}"


def positions(num_tokens: int) -> torch.Tensor:
    """Positions int64 [3, T] of a prompt that is half text, half one image; of one generated token if T is 1."""
    if num_tokens < 16:
        return torch.arange(1000, 1000 + num_tokens).expand(3, -1)
    side = 1
    while 2 * (side + 1) ** 2 <= num_tokens:
        side += 1
    image = MediaSpan(num_tokens // 4, Grid(1, 2 * side, 2 * side))
    return torch.from_numpy(mrope_positions(num_tokens, [image])[0])


def measure(seconds: float, device: str) -> list[Row]:
    """Every shape, type and length, each measured for about so many seconds."""
    return [
        _row(model, dtype, num_tokens, seconds, device)
        for model in HEADS
        for dtype in (torch.float32, torch.bfloat16)
        for num_tokens in TOKENS
    ]


def _row(model: str, dtype: torch.dtype, num_tokens: int, seconds: float, device: str) -> Row:
    num_heads, num_kv_heads = HEADS[model]
    sizes = [num_heads * HEAD_DIM, num_kv_heads * HEAD_DIM, num_kv_heads * HEAD_DIM]
    query, key, _ = torch.split(torch.randn(num_tokens, sum(sizes)).to(device, dtype), sizes, dim=-1)
    q, k = query.view(num_tokens, num_heads, HEAD_DIM), key.view(num_tokens, num_kv_heads, HEAD_DIM)
    place = positions(num_tokens).to(device).contiguous()
    table = cos_sin_table(MAX_POSITION, inverse_frequencies(HEAD_DIM, THETA)).to(device)
    with set_current_vllm_config(VllmConfig()):
        rival = MRotaryEmbedding(HEAD_DIM, HEAD_DIM, MAX_POSITION, THETA, True, dtype, SECTION, positions_factor=1)
        rival.to(device)
    query_copy, key_copy = torch.empty_like(query), torch.empty_like(key)

    def copy() -> None:
        query_copy.copy_(query)
        key_copy.copy_(key)

    rotate = rival.forward_native if device == "cpu" else rival.forward_cuda
    calls: list[Callable[[], object]] = [
        lambda: mrope_(q, k, place, table, SECTION),
        lambda: rotate(place, query, key),
        copy,
    ]
    if device == "cpu":
        return Row(model, dtype, num_tokens, *_medians(calls, seconds))
    medians = _medians([_recorded(call) for call in calls], seconds)
    return Row(model, dtype, num_tokens, *(median / CALLS_PER_GRAPH for median in medians))


def _recorded(call: Callable[[], object]) -> Callable[[], object]:
    """Replays `CALLS_PER_GRAPH` calls from a CUDA graph and waits for their end."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS_PER_GRAPH):
            call()

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay


def _medians(calls: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Median seconds of each call, in rounds that run each for a few milliseconds."""
    repeats = [max(1, round(TARGET_ROUND_S / _timed(call, 3))) for call in calls]
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for call, repeat, taken in zip(calls, repeats, times, strict=True):
            taken.append(_timed(call, repeat))
    return [statistics.median(taken) for taken in times]


def _timed(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line of the table")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        native.load()
        machine = f"{torch.get_num_threads()} threads, {native.instructions()}"
    else:
        machine = torch.cuda.get_device_name()
    print(f"M-RoPE, {machine}, half text and half image, medians")
    print(HEADER)
    with torch.inference_mode():
        for row in measure(arguments.seconds, arguments.device):
            print(row)


if __name__ == "__main__":
    main()
