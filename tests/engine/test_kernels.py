"""The engine with other bodies of the rotary operator: a right one changes no token, a wrong one is noticed.

With the compiled body everything else here runs.
"""

from pathlib import Path

import pytest

from model_executor.client.engine_client import EngineClient
from model_executor.engine import EngineSettings
from tests.support.engines import ready
from tests.support.oracle import Oracle
from tests.support.prompts import NUM_TOKENS, conversations, greedy, prompt_of

pytestmark = [pytest.mark.engine, pytest.mark.slow]

MEDIA = ("three pictures between text", "clip, picture, second turn")


@pytest.mark.parametrize("kernel", ["reference", "swapped"])
async def test_answers_are_those_of_transformers_unless_height_and_width_are_swapped(
    kernel: str, oracle: Oracle, shared_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNEL", kernel)
    settings = EngineSettings(dtype="float32", max_model_len=4096, kv_cache_bytes=256 << 20, warm_standby=False)
    engine = EngineClient(oracle.folder, settings, shared_memory=shared_memory, module="tests.engine.altered_host")
    await engine.start()
    try:
        await ready(engine)
        for name in ("text", *MEDIA):
            turns = conversations()[name]
            token_ids, _, _ = await greedy(engine, prompt_of(oracle, turns, shared_memory))
            same = token_ids == oracle.answer(turns, NUM_TOKENS).token_ids
            assert same == (kernel == "reference" or name == "text"), name
    finally:
        await engine.close()
