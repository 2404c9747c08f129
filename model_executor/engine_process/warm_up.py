"""Requests that are answered before the first one comes, so that what compiles at first use has compiled by then."""

import contextlib
from pathlib import Path
from tempfile import NamedTemporaryFile

from model_executor.engine import MediaItem, Modality, Prompt, RequestRefusedError, SamplingParams
from model_executor.engine_process.vllm_engine import VllmEngine
from model_executor.processor.geometry import MERGE, PATCH_PX, Grid

NUM_TOKENS = 4
_TEXT = [0] * 24
_LIMITS = (
    SamplingParams(max_tokens=NUM_TOKENS, ignore_eos=True, temperature=0, logprobs=2),
    SamplingParams(max_tokens=NUM_TOKENS, ignore_eos=True, top_p=0.9, top_k=20, seed=1),
)
_ITEMS: tuple[tuple[Modality, Grid, int], ...] = (
    ("image", Grid(1, 6 * MERGE, 8 * MERGE), 1),
    ("video", Grid(3, 4 * MERGE, 6 * MERGE), 2),
)
"""Modality, grid and frames in a row of patches."""


async def warm_up(runner: VllmEngine, folder: Path) -> None:
    """Have a text, an image and a video answered, greedily and sampled.

    Args:
        runner: with its adapters loaded.
        folder: the server's shared memory, where the patches lie meanwhile.
    """
    for number, limits in enumerate(_LIMITS):
        await _answered(runner, f"warm-up-{number}", Prompt(_TEXT), limits)
        for modality, grid, num_frames in _ITEMS:
            with NamedTemporaryFile(dir=folder) as file:
                file.truncate(grid.num_patches * num_frames * 3 * PATCH_PX * PATCH_PX)
                placeholders = [runner.placeholders[modality]] * grid.num_tokens
                item = MediaItem(
                    modality, (grid.t, grid.h, grid.w), len(_TEXT), grid.num_tokens, f"warm-up-{number}", file.name
                )
                prompt = Prompt([*_TEXT, *placeholders, *_TEXT], [item], cache_salt=f"warm-up-{number}")
                await _answered(runner, f"warm-up-{modality}-{number}", prompt, limits)


async def _answered(runner: VllmEngine, request_id: str, prompt: Prompt, limits: SamplingParams) -> None:
    with contextlib.suppress(RequestRefusedError):  # a context too short for it
        async for _ in runner.generate(request_id, prompt, limits):
            pass
