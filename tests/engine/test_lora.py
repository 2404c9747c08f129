"""LoRA adapters in one engine, against transformers with the same adapters merged into its weights by hand."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from model_executor.checkpoint.config import read_checkpoint
from model_executor.checkpoint.lora import read_adapters
from model_executor.client.engine_client import EngineClient
from model_executor.engine import EngineSettings, Prompt, RequestRefusedError, SamplingParams
from tests.support.adapters import merge, write_adapter
from tests.support.engines import ready
from tests.support.oracle import Answer, Oracle
from tests.support.prompts import collect, conversations, greedy, prompt_of

pytestmark = pytest.mark.engine

NUM_TOKENS = 24
BLOCK_TOKENS = 128
"""Of the prefix cache on a CPU."""
NAMES = ("text", "clip, picture, second turn")


@pytest.fixture(scope="module")
def lora_dir(other_oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters.

    `all` changes every module, in today's names; `few` changes two, in the names of the release's days, and scales by
    the root of its rank.
    """
    folder = tmp_path_factory.mktemp("adapters")
    write_adapter(folder / "all", other_oracle.folder, rank=4, alpha=8, seed=1)
    few = ("self_attn.q_proj", "self_attn.v_proj")
    write_adapter(
        folder / "few", other_oracle.folder, rank=12, alpha=9, modules=few, prefix="model.", seed=2, use_rslora=True
    )
    return folder


@pytest.fixture(scope="module")
def expected(other_oracle: Oracle, lora_dir: Path) -> dict[tuple[str | None, str], Answer]:
    """By adapter (None: the model itself) and conversation, what transformers answers with the weights merged."""
    answers: dict[tuple[str | None, str], Answer] = {}
    for adapter, scale in ((None, 0), ("all", 8 / 4), ("few", 9 / 12**0.5)):
        oracle = other_oracle if adapter is None else Oracle(other_oracle.folder)
        if adapter is not None:
            merge(lora_dir / adapter, oracle.network.model.language_model.layers, scale)
        answers |= {(adapter, name): oracle.answer(conversations()[name], NUM_TOKENS) for name in NAMES}
    return answers


@pytest.fixture(scope="module")
async def adapted(other_oracle: Oracle, lora_dir: Path, shared_memory: Path) -> AsyncIterator[EngineClient]:
    """An engine that serves the model and both adapters."""
    settings = EngineSettings(
        dtype="float32", max_model_len=4096, kv_cache_bytes=256 << 20, lora_dir=lora_dir, warm_standby=False
    )
    client = EngineClient(other_oracle.folder, settings, shared_memory=shared_memory)
    await client.start()
    await ready(client)
    yield client
    await client.close()


def with_adapter(prompt: Prompt, adapter: str | None) -> Prompt:
    return msgspec.structs.replace(prompt, adapter=adapter)


def check(got: tuple[list[int], list[float], int], answer: Answer) -> None:
    assert got[0] == answer.token_ids
    assert got[1] == pytest.approx(answer.logprobs, abs=1e-3)


def test_the_adapters_change_answers(expected: dict[tuple[str | None, str], Answer]) -> None:
    assert len({tuple(answer.token_ids) for answer in expected.values()}) == len(expected)
    assert all(len(set(answer.token_ids)) > NUM_TOKENS / 2 for answer in expected.values())


async def test_a_mixed_batch_equals_merged_weights_and_leaves_the_model_as_it_is(
    adapted: EngineClient,
    other_oracle: Oracle,
    shared_memory: Path,
    expected: dict[tuple[str | None, str], Answer],
) -> None:
    """All slots that may hold an adapter do, and prompts of every kind are read and answered in the same steps."""
    cases = [*expected, *expected]
    prompts = [
        with_adapter(prompt_of(other_oracle, conversations()[name], shared_memory), adapter) for adapter, name in cases
    ]
    for case, got in zip(
        cases, await asyncio.gather(*(greedy(adapted, prompt, NUM_TOKENS) for prompt in prompts)), strict=True
    ):
        check(got, expected[case])


async def test_prefixes_are_cached_for_each_adapter_apart(
    adapted: EngineClient,
    other_oracle: Oracle,
    shared_memory: Path,
    expected: dict[tuple[str | None, str], Answer],
) -> None:
    name = NAMES[1]
    prompt = prompt_of(other_oracle, conversations()[name], shared_memory)
    fresh = msgspec.structs.replace(prompt, cache_salt="here for the first time")
    assert len(prompt.token_ids) > BLOCK_TOKENS
    for adapter in (None, "all", "few"):
        first = await greedy(adapted, with_adapter(fresh, adapter), NUM_TOKENS)
        again = await greedy(adapted, with_adapter(fresh, adapter), NUM_TOKENS)
        check(first, expected[adapter, name])
        check(again, expected[adapter, name])
        assert first[2] == 0 and again[2] >= BLOCK_TOKENS


async def test_an_adapter_that_is_not_there_is_refused(adapted: EngineClient) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        await collect(adapted, Prompt([100, 200], adapter="other"), SamplingParams(max_tokens=1))
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"lora_alpha": "much"}, "much|str"),
    ],
)
@pytest.mark.usefixtures("vllm_imported")
def test_variants_of_lora_that_would_be_computed_wrongly_end_the_start(
    tiny_checkpoint: Path, tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    from model_executor.engine_process.vllm_config import SettingsError, launch

    write_adapter(tmp_path / "adapters" / "odd", tiny_checkpoint, **config)
    adapters = read_adapters(tmp_path / "adapters", tiny_checkpoint)
    with pytest.raises(SettingsError, match=f"the adapter 'odd' is not supported: .*({reason})"):
        launch(read_checkpoint(tiny_checkpoint), EngineSettings(), adapters, cpu=True)
