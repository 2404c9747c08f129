"""Qwen-VL where the released models' rotary base grows: at 2048 and 4096 tokens.

In a file of its own, so that no other model's servers run at the same time.
"""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.test_exactness import ask, check
from tests.support.oracle import Turn
from tests.support.qwen_vl_oracle import QwenVLOracle
from tests.support.serving import RunningServer
from training.random_qwen_vl import QwenVLShape, write_random_qwen_vl

pytestmark = [pytest.mark.engine, pytest.mark.slow]

LENGTHS = {"to 2048 and beyond": 2044, "beyond 2048": 2050, "to 4096 and beyond": 4094, "beyond 4096": 4099}


async def test_equals_the_oracle_at_the_released_models_borders(tmp_path: Path) -> None:
    write_random_qwen_vl(tmp_path / "model", QwenVLShape(num_layers=2))
    oracle = QwenVLOracle(tmp_path / "model")
    frame = oracle.prompt([("user", [""])])[0]
    asks: dict[str, list[Turn]] = {name: [("user", [" sea" * (n - len(frame))])] for name, n in LENGTHS.items()}
    with RunningServer(tmp_path / "model", {"TESSERA_ENGINE__DTYPE": "float32"}) as server:
        answers = await asyncio.gather(*(ask(server.url, turns, 6) for turns in asks.values()))
    for (name, turns), answer in zip(asks.items(), answers, strict=True):
        expected = oracle.answer(turns, 6)
        assert expected.num_prompt_tokens == LENGTHS[name]
        check(answer, expected)
