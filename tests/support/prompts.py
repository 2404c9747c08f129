"""Conversations as prompts: ids, grids and pixels as the oracle has them, in the form the engine takes.

Nothing here uses the server's media or rendering: the rows are the oracle's own, brought back to bytes.
"""

import hashlib
import math
import secrets
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_executor.client.engine_client import EngineClient
from model_executor.engine import Delta, MediaItem, Modality, Prompt, SamplingParams
from tests.support.images import made_clip, photo, real_video, small_photos
from tests.support.oracle import MEAN, STD, Answer, Clip, Oracle, Still, Turn, slice_seconds

NUM_TOKENS = 32


def conversations() -> dict[str, list[Turn]]:
    """What is asked."""
    a, b, c = (Still(picture) for picture in small_photos())
    clip = Clip(real_video().read_bytes(), max_pixels=60 * 784)
    long_clip = Clip(made_clip(300, width=56, height=56), max_pixels=9 * 784)
    return {
        "text": [("user", ["Tell me about the sea, the tides and the moon."])],
        "photo of a megapixel": [("user", [Still(photo()), "What is in this picture?"])],
        "three pictures between text": [("user", ["First ", a, " then ", b, " and\n", c, "\nWhich is the odd one?"])],
        "real clip": [("user", [clip, "What happens?"])],
        "clip, picture, second turn": [
            ("system", ["Answer briefly."]),
            ("user", [clip, "What is this?", a]),
            ("assistant", ["A street, and a cat."]),
            ("user", ["\nAnd which animal, exactly?"]),
        ],
        "clip with t above max(h, w)": [("user", [long_clip, "Where does it go?"])],
        "clip seen rarely": [("user", [replace(long_clip, fps=0.7), "Where does it go?"])],
        "clip seen often, then a picture": [("user", ["Look: ", replace(long_clip, fps=5.3), a, "Where does it go?"])],
    }


def prompt_of(oracle: Oracle, turns: list[Turn], folder: Path) -> Prompt:
    """The prompt, with patch files written to `folder`."""
    text, grids, pixels = oracle.prompt(turns)
    ids = oracle.tokenizer.encode(text, add_special_tokens=False)
    kinds: dict[int, Modality] = dict(zip(oracle.placeholders(), ("image", "video"), strict=True))
    rows = {
        "image": _as_bytes(pixels["pixel_values"].numpy())[:, :, :1] if "pixel_values" in pixels else None,
        "video": _as_bytes(pixels["pixel_values_videos"].numpy()) if "pixel_values_videos" in pixels else None,
    }
    used = {"image": 0, "video": 0}
    media: list[MediaItem] = []
    parts = [part for _, parts in turns for part in parts if not isinstance(part, str)]
    offset = 0
    for token, run in groupby(ids):
        length = len(list(run))
        if token in kinds:
            kind, grid = kinds[token], grids[len(media)]
            source = rows[kind]
            assert source is not None and length == math.prod(grid) // 4
            own = source[used[kind] : used[kind] + math.prod(grid)]
            used[kind] += math.prod(grid)
            path = folder / secrets.token_hex(8)
            path.write_bytes(own.tobytes())
            slice_s = slice_seconds(part) if isinstance(part := parts[len(media)], Clip) else 0.0
            digest = hashlib.sha256(own.tobytes() + repr((kind, grid, slice_s)).encode()).hexdigest()
            media.append(MediaItem(kind, grid, offset, length, digest, str(path), slice_s))
        offset += length
    return Prompt(ids, media)


def _as_bytes(normalized: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Normalized rows [P, 1176] back to uint8 [P, 3, 2, 196]."""
    by_channel = normalized.reshape(-1, 3, 2, 196)
    exact = (by_channel * STD[:, None, None] + MEAN[:, None, None]) * 255
    assert np.abs(exact - exact.round()).max() < 1e-2
    return np.asarray(exact.round(), np.uint8)


async def collect(engine: EngineClient, prompt: Prompt, limits: SamplingParams) -> list[Delta]:
    """The whole answer."""
    return [delta async for delta in engine.generate(secrets.token_hex(8), prompt, limits)]


async def greedy(
    engine: EngineClient, prompt: Prompt, num_tokens: int = NUM_TOKENS
) -> tuple[list[int], list[float], int]:
    """Greedy ids, their log-probabilities, and how many prompt tokens came from the prefix cache."""
    limits = SamplingParams(max_tokens=num_tokens, temperature=0, ignore_eos=True, logprobs=0)
    deltas = await collect(engine, prompt, limits)
    logprobs = [position.sampled.logprob for delta in deltas for position in delta.logprobs or []]
    return ids_of(deltas), logprobs, deltas[0].num_cached_tokens


def ids_of(deltas: Iterable[Delta], index: int = 0) -> list[int]:
    """Token ids of one choice."""
    return [id_ for delta in deltas if delta.index == index for id_ in delta.token_ids]


def text_of(deltas: Iterable[Delta], index: int = 0) -> str:
    """Text of one choice."""
    return "".join(delta.text for delta in deltas if delta.index == index)


def expected_answers(oracle: Oracle) -> dict[str, Answer]:
    """The oracle's answer to every conversation."""
    return {name: oracle.answer(turns, NUM_TOKENS) for name, turns in conversations().items()}
