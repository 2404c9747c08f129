"""Quantised checkpoints of the released layouts, pictures included, against transformers on the plain numbers."""

import json
import shutil
from pathlib import Path
from typing import Literal

import pytest
import torch

from model_executor.checkpoint.config import read_checkpoint
from model_executor.client.engine_client import EngineClient
from model_executor.cpu import has_int8_tiles
from model_executor.engine import EngineSettings
from tests.engine.quantised import CONFIGS, Scheme, quantise_activations, write_quantised
from tests.support.engines import ready
from tests.support.oracle import Oracle, Turn, literal_positions
from tests.support.prompts import conversations, greedy, prompt_of
from training.random_checkpoint import CheckpointShape, write_random_checkpoint
from training.random_weights import VisionShape, WindowVisionShape

pytestmark = [pytest.mark.engine, pytest.mark.slow]

NUM_TOKENS = 24
NAMES = ("text", "photo of a megapixel", "clip, picture, second turn")
DTYPES: dict[Scheme, Literal["float32", "bfloat16"]] = {
    "w8a8": "bfloat16" if has_int8_tiles() else "float32",
    "awq": "bfloat16",
    "gptq": "bfloat16",
}
"""What each is computed in; vLLM has no float32 for the last two, and on processors with AMX for none."""
LARGEST_MEDIAN = 0.4
"""Of the differences between log-probabilities, in nats.

Not zero: bfloat16 has 8 bits, and where the last bit of a float32 number moves an activation over a rounding border of
W8A8, that one is another by a 127th of the largest. The random weights carry either on undamped."""
LARGEST_REGRET: dict[Scheme, float] = {"w8a8": 1.2 if has_int8_tiles() else 0.6, "awq": 0.75, "gptq": 0.75}
"""By how much another token than the chosen one may be likelier to the oracle, in nine positions of ten, in nats.
Processors differ in how they round sums of bfloat16: with AMX it comes to 0.63, and to 0.86 where activations are
quantized, too."""


@pytest.mark.parametrize(
    ("scheme", "tower"), [*((scheme, VisionShape()) for scheme in DTYPES), ("awq", WindowVisionShape())]
)
async def test_answers_as_transformers_does_with_the_dequantised_weights(
    scheme: Scheme, tower: VisionShape | WindowVisionShape, tmp_path: Path, shared_memory: Path
) -> None:
    write_random_checkpoint(tmp_path / "source", CheckpointShape(vision=tower))
    write_quantised(tmp_path / "source", tmp_path / "quantised", tmp_path / "plain", scheme)
    oracle = Oracle(tmp_path / "plain")
    if scheme == "w8a8":
        quantise_activations(oracle.network.model)
    settings = EngineSettings(dtype=DTYPES[scheme], max_model_len=4096, kv_cache_bytes=256 << 20, warm_standby=False)
    engine = EngineClient(tmp_path / "quantised", settings, shared_memory=shared_memory)
    await engine.start()
    try:
        await ready(engine)
        for name in NAMES:
            turns = conversations()[name]
            ids, logprobs, _ = await greedy(engine, prompt_of(oracle, turns, shared_memory), NUM_TOKENS)
            chosen, best = _scored(oracle, turns, ids)
            distances = (chosen - torch.tensor(logprobs)).abs()
            assert len(set(ids)) > NUM_TOKENS / 2
            assert distances.median() < LARGEST_MEDIAN
            assert (best - chosen).quantile(0.9) < LARGEST_REGRET[scheme]
    finally:
        await engine.close()


@pytest.mark.usefixtures("vllm_imported")
def test_a_cpu_refuses_by_name_what_it_cannot_compute(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from model_executor.engine_process.vllm_config import SettingsError, launch

    folder = tmp_path / "quantised"
    shutil.copytree(tiny_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    said = CONFIGS["gptq"] | {"bits": 8}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": said}))
    with pytest.raises(SettingsError, match=r"gptq \(int8\), is not supported on a CPU\. Supported: 4-bit AWQ"):
        launch(read_checkpoint(folder), EngineSettings(), cpu=True)


@torch.inference_mode()
def _scored(oracle: Oracle, turns: list[Turn], answer: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities that the oracle gives to each id of an answer, and to what it would have said there."""
    text, grids, pixels = oracle.prompt(turns)
    prompt = oracle.tokenizer.encode(text, add_special_tokens=False)
    ids = prompt + answer[:-1]
    positions = torch.tensor(literal_positions(ids, grids, oracle.placeholders(), oracle.time_steps(turns)))[:, None]
    logits = oracle.network(input_ids=torch.tensor([ids]), position_ids=positions, **pixels).logits[0]
    distributions = logits[len(prompt) - 1 :].log_softmax(-1)
    return distributions.gather(1, torch.tensor(answer)[:, None])[:, 0], distributions.amax(-1)
