"""The executor without the server: vision tower, share of the rotary operator, decode steps, start and restart.

Run: `python -m benchmarks.executor [towers rotation bundled] [--seconds S]`. Both sides of a ratio run in turns. Times
of the towers are CPU seconds of all threads, in which the machine's load hardly shows, besides the wall clock. Ratios
are what to quote.
"""

import argparse
import asyncio
import itertools
import os
import secrets
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.model_executor.models.utils import AutoWeightsLoader

from benchmarks.mrope import HEAD_DIM, HEADS, SECTION, THETA, positions
from model_executor.checkpoint.config import BUNDLED_MODEL, resolve_checkpoint
from model_executor.checkpoint.processor_files import CLIP_MEAN, CLIP_STD
from model_executor.client.engine_client import EngineClient
from model_executor.cpu import has_native_bfloat16, num_cores
from model_executor.engine import EngineSettings, EngineState, Prompt, SamplingParams
from model_executor.kernels import native
from model_executor.kernels.mrope import cos_sin_table, inverse_frequencies, mrope_
from model_executor.models.qwen2_vl.vision import VisionTower
from model_executor.models.shared.tower import PixelStatistics
from model_executor.processor.geometry import Grid
from training.random_checkpoint import CheckpointShape, write_random_checkpoint
from training.random_weights import TextShape, VisionShape

TOWER: dict[str, Any] = {"depth": 4, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "hidden_size": 1536}
"""The 2B model's, with 4 of its 32 blocks."""
GRIDS = (Grid(1, 32, 48), Grid(1, 60, 100))
"""Pictures of 1536 and 6000 patches."""
NUM_LAYERS, ALL_LAYERS = 4, 28
PREFILL_TOKENS = 2048
DECODE_TOKENS = 96
READY_TIMEOUT_S = 1800
SPARE_S = 40
"""From a ready engine to a spare that has long done its imports."""
PARTS = ("towers", "rotation", "bundled")


def main() -> None:
    """Print the parts asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="what to measure; all, if nothing is said")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each ratio of towers")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    torch.set_num_threads(num_cores())
    native.load()
    if "towers" in parts:
        with _one_rank(), torch.inference_mode():
            for dtype in (torch.float32, *([torch.bfloat16] if has_native_bfloat16() else [])):
                towers(dtype, arguments.seconds)
    if "rotation" in parts:
        asyncio.run(share_of_rotation())
    if "bundled" in parts:
        asyncio.run(bundled_model())


def towers(dtype: torch.dtype, seconds: float) -> None:
    """Our tower and transformers', on the same weights and pictures."""
    theirs, ours = _towers(dtype)
    for grid in GRIDS:
        rows = torch.randint(0, 256, (grid.num_patches, 588), dtype=torch.uint8)
        pixels, shape = _normalised(rows).to(dtype), torch.tensor([[grid.t, grid.h, grid.w]])
        calls: list[Callable[[], Any]] = [partial(ours, [rows], [grid]), partial(theirs, pixels, shape)]
        got, expected = calls[0]()[0].float(), calls[1]().pooler_output.float()
        error = float((got - expected).norm() / expected.norm())
        own, other = _medians(calls, seconds)
        name = f"tower, {TOWER['depth']} blocks, {grid.num_patches} patches, {str(dtype).removeprefix('torch.')}"
        print(
            f"{name:52}{own.cpu_s * 1e3:9.0f} ms of CPU, transformers {other.cpu_s * 1e3:.0f} ms:"
            f" {other.cpu_s / own.cpu_s:.2f}x; by the clock {other.wall_s / own.wall_s:.2f}x"
            f" (outputs differ by {error:.1e})"
        )


async def share_of_rotation() -> None:
    """The operator's part of a decode step and of a prefill, the operator measured alone at the same sizes.

    The model has the 2B model's widths, a seventh of its layers and a seventh of its vocabulary, so that the shares are
    those of the whole model.
    """
    num_heads, num_kv_heads = HEADS["2B"]
    text = TextShape(
        num_layers=NUM_LAYERS,
        hidden=num_heads * HEAD_DIM,
        intermediate=8960,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        mrope_section=(SECTION[0], SECTION[1], SECTION[2]),
        vocab_size=151_936 * NUM_LAYERS // ALL_LAYERS,
    )
    settings = EngineSettings(
        dtype="float32", max_model_len=4096, max_num_batched_tokens=PREFILL_TOKENS, max_num_seqs=8, warm_standby=False
    )
    with TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder), CheckpointShape(text, VisionShape(depth=1)))
        engine = await _started(Path(folder), settings)
        try:
            decode_s = await _decode_step_s(engine, 1)
            prefill_s = statistics.median([await _prefill_s(engine) for _ in range(3)])
        finally:
            await engine.close()
    for name, num_tokens, whole_s in (("decode step", 1, decode_s), ("prefill", PREFILL_TOKENS, prefill_s)):
        own_s = _rotation_s(num_tokens) * NUM_LAYERS
        print(
            f"{f'M-RoPE in a {name} of 2B width, T = {num_tokens}':52}{own_s * 1e3:9.3f} ms of {whole_s * 1e3:.1f} ms:"
            f" {own_s / whole_s:.2%}"
        )


async def bundled_model() -> None:
    """Decode steps of the model that ships along, its start, and its return by the warm spare."""
    started = time.monotonic()
    engine = await _started(resolve_checkpoint(BUNDLED_MODEL), EngineSettings())
    try:
        print(f"{'start of the engine':52}{time.monotonic() - started:9.1f} s")
        await asyncio.sleep(SPARE_S)
        for batch in (1, 8):
            steps = [await _decode_step_s(engine, batch) for _ in range(3)]
            print(f"{f'decode step of {BUNDLED_MODEL}, batch {batch}':52}{statistics.median(steps) * 1e3:9.2f} ms")
        assert engine.process_id is not None
        os.kill(engine.process_id, signal.SIGKILL)
        started = time.monotonic()
        while engine.state is EngineState.READY:
            await asyncio.sleep(0.01)
        await _ready(engine)
        print(f"{'restart after SIGKILL, warm spare':52}{time.monotonic() - started:9.1f} s")
    finally:
        await engine.close()


@contextmanager
def _one_rank() -> Iterator[None]:
    """The process group, of one, that vLLM's linear layers want."""
    with TemporaryDirectory() as folder, set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{folder}/store", 0, "gloo")
        initialize_model_parallel()
        yield


def _towers(dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """Theirs and ours, with the same random weights."""
    config = Qwen2VLVisionConfig(**TOWER)
    theirs: nn.Module = Qwen2VisionTransformerPretrainedModel._from_config(  # type: ignore[no-untyped-call]
        config, dtype=dtype
    )
    theirs.train(False)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        ours = VisionTower(config, PixelStatistics(CLIP_MEAN, CLIP_STD), None, "visual")
    finally:
        torch.set_default_dtype(before)
    AutoWeightsLoader(ours).load_weights(theirs.state_dict().items())
    for module in ours.modules():
        if method := getattr(module, "quant_method", None):
            method.process_weights_after_loading(module)
    return theirs, ours


def _normalised(rows: torch.Tensor) -> torch.Tensor:
    """Rows [P, 588] as transformers takes them: float32 [P, 1176], each frame twice."""
    pixels = rows.view(-1, 3, 1, 196).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return ((pixels - mean) / std).expand(-1, -1, 2, -1).flatten(1)


@dataclass(frozen=True)
class Taken:
    """Median seconds of a call."""

    cpu_s: float
    wall_s: float


def _medians(calls: list[Callable[[], Any]], seconds: float) -> list[Taken]:
    """What each call takes, called in turns for so many seconds, three times at least."""
    times: list[list[tuple[float, float]]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 3:
        for call, taken in zip(calls, times, strict=True):
            cpu, wall = time.process_time(), time.perf_counter()
            call()
            taken.append((time.process_time() - cpu, time.perf_counter() - wall))
    return [Taken(*(statistics.median(column) for column in zip(*taken, strict=True))) for taken in times]


def _rotation_s(num_tokens: int) -> float:
    """Median seconds of one call of the operator on the 2B model's heads."""
    num_heads, num_kv_heads = HEADS["2B"]
    qkv = torch.randn(num_tokens, num_heads + 2 * num_kv_heads, HEAD_DIM)
    q, k = qkv[:, :num_heads], qkv[:, num_heads : num_heads + num_kv_heads]
    place, table = positions(num_tokens), cos_sin_table(4096, inverse_frequencies(HEAD_DIM, THETA))
    return _medians([lambda: mrope_(q, k, place, table, SECTION)], 1.0)[0].wall_s


async def _started(folder: Path, settings: EngineSettings) -> EngineClient:
    engine = EngineClient(folder, settings)
    await engine.start()
    await _ready(engine)
    return engine


async def _ready(engine: EngineClient) -> None:
    async with asyncio.timeout(READY_TIMEOUT_S):
        while engine.state is not EngineState.READY:
            assert engine.state is not EngineState.FAILED, engine.failure
            await asyncio.sleep(0.01)


async def _decode_step_s(engine: EngineClient, batch: int) -> float:
    """Median seconds between the tokens of answers that are generated together."""
    limits = SamplingParams(max_tokens=DECODE_TOKENS, temperature=0, ignore_eos=True)

    async def gaps(number: int) -> list[float]:
        moments = []
        async for _ in engine.generate(secrets.token_hex(8), Prompt([100 + number, 200, 300]), limits):
            moments.append(time.perf_counter())
        return [later - earlier for earlier, later in itertools.pairwise(moments)]

    return statistics.median(itertools.chain.from_iterable(await asyncio.gather(*map(gaps, range(batch)))))


async def _prefill_s(engine: EngineClient) -> float:
    """Seconds to the first token after a prompt that no cache knows."""
    prompt = Prompt([100 + secrets.randbelow(1000) for _ in range(PREFILL_TOKENS)])
    started = time.perf_counter()
    async for _ in engine.generate(
        secrets.token_hex(8), prompt, SamplingParams(max_tokens=1, temperature=0, ignore_eos=True)
    ):
        pass
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
