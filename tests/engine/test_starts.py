"""What a checkpoint must have to start, and what is said of one that cannot."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model_executor.client import supervisor
from model_executor.client.engine_client import EngineClient
from model_executor.engine import EngineSettings, EngineState
from tests.support.engines import START_TIMEOUT_S, ready
from tests.support.oracle import Oracle
from tests.support.prompts import conversations, expected_answers, greedy, prompt_of
from training.random_checkpoint import write_random_checkpoint

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SETTINGS = EngineSettings(dtype="float32", max_model_len=4096, kv_cache_bytes=256 << 20, warm_standby=False)


def say(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def pickle_without(folder: Path, name: str) -> None:
    """The weights as an old file of torch, without one of them."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    tensors.pop(name, None)
    torch.save(tensors, folder / "pytorch_model.bin")


async def test_a_stretched_context_answers_as_transformers_does(tmp_path: Path, shared_memory: Path) -> None:
    write_random_checkpoint(tmp_path)
    rope = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "mrope_section": [8, 12, 12]}
    say(tmp_path, rope_scaling=rope, max_position_embeddings=512)
    oracle = Oracle(tmp_path)
    expected = expected_answers(oracle)
    pickle_without(tmp_path, "nothing")  # and read from an old file, at that
    settings = SETTINGS.model_copy(update={"max_model_len": None})
    engine = EngineClient(tmp_path, settings, shared_memory=shared_memory)
    await engine.start()
    try:
        await ready(engine)
        for name in ("text", "clip, picture, second turn"):
            ids, logprobs, _ = await greedy(engine, prompt_of(oracle, conversations()[name], shared_memory))
            assert ids == expected[name].token_ids
            assert logprobs == pytest.approx(expected[name].logprobs, abs=1e-3)
    finally:
        await engine.close()


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "sections": (
        lambda folder: say(folder, rope_scaling={"type": "mrope", "mrope_section": [4, 4, 4]}),
        "cannot load the model: ValueError: mrope_section [4, 4, 4] does not add up",
    ),
    "pickled": (
        lambda folder: pickle_without(folder, "visual.merger.mlp.2.weight"),
        "they lack 'visual.merger.mlp.2.weight'",
    ),
    "activation": (lambda folder: say(folder, hidden_act="tanh"), "cannot load the model: ValueError"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_what_cannot_heal_is_tried_once_and_said(
    name: str, tmp_path: Path, shared_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, says = FAULTS[name]
    write_random_checkpoint(tmp_path)
    change(tmp_path)
    monkeypatch.setattr(supervisor, "MAX_FAILED_STARTS", 1000)
    engine = EngineClient(tmp_path, SETTINGS, shared_memory=shared_memory)
    await engine.start()
    seen = set()
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while engine.state is not EngineState.FAILED:
                seen.add(engine.process_id)
                await asyncio.sleep(0.05)
        assert says in str(engine.failure)
        assert len(seen - {None}) == 1
    finally:
        await engine.close()
