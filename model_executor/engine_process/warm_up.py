"""Requests that are answered before the first one comes, so that what compiles at first use has compiled by then."""

import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from model_executor.engine import EngineError, MediaItem, Modality, Prompt, RequestRefusedError, SamplingParams
from model_executor.processor.geometry import MERGE, PATCH_PX, Grid, Size, image_grid

if TYPE_CHECKING:
    from model_executor.engine_process.vllm_engine import VllmEngine

NUM_TOKENS = 4
_TEXT = [0] * 24
_PARAMS = (
    SamplingParams(max_tokens=NUM_TOKENS, ignore_eos=True, temperature=0, logprobs=2),
    SamplingParams(max_tokens=NUM_TOKENS, ignore_eos=True, top_p=0.9, top_k=20, seed=1),
)
_Item = tuple[Modality, Grid, int]
_ITEMS: tuple[_Item, ...] = (
    ("image", Grid(1, 6 * MERGE, 8 * MERGE), 1),
    ("video", Grid(3, 4 * MERGE, 6 * MERGE), 2),
)
"""Modality, grid and frames in a row of patches."""

_log = logging.getLogger(__name__)


async def warm_up(engine: "VllmEngine", directory: Path, image_size: Size | None = None) -> None:
    """Have a text, an image and a video answered, greedily and sampled. What cannot be answered is logged.

    Args:
        engine: with its adapters loaded.
        directory: the server's shared memory, where the patches are while it runs.
        image_size: of all images, where the family has one and no videos.
    """
    items = _ITEMS if image_size is None else (("image", image_grid(image_size), 1),)
    for number, params in enumerate(_PARAMS):
        for prompt in _prompts(engine.placeholder_ids, items, directory, f"warm-up-{number}"):
            try:
                async for _ in engine.generate(f"warm-up-{number}-{len(prompt.token_ids)}", prompt, params):
                    pass
            except RequestRefusedError:  # the context is too short for it
                continue
            except EngineError:
                _log.warning("a request to warm up failed", exc_info=True)


def _prompts(
    placeholder_ids: dict[Modality, int], items: tuple[_Item, ...], directory: Path, salt: str
) -> Iterator[Prompt]:
    """A text, then each item between texts; its patches are black, and there until the next is taken."""
    yield Prompt(_TEXT, cache_salt=salt)
    for modality, grid, num_frames in items:
        with NamedTemporaryFile(dir=directory) as file:
            file.truncate(grid.num_patches * num_frames * 3 * PATCH_PX * PATCH_PX)
            size = (grid.t, grid.h, grid.w)
            item = MediaItem(modality, size, len(_TEXT), grid.num_tokens, f"{salt}-{modality}", file.name)
            token_ids = [*_TEXT, *[placeholder_ids[modality]] * grid.num_tokens, *_TEXT]
            yield Prompt(token_ids, [item], cache_salt=salt)
