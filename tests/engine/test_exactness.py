"""Token-for-token equality with transformers, at the engine's seam, on the same float32 weights."""

import asyncio
from pathlib import Path

import pytest

from model_executor.client.engine_client import EngineClient
from model_executor.engine import Prompt
from tests.support.oracle import Answer, Oracle
from tests.support.prompts import NUM_TOKENS, conversations, expected_answers, greedy, prompt_of

pytestmark = [pytest.mark.engine, pytest.mark.slow]

MANY_TOKENS = 160


@pytest.fixture(scope="module")
def expected(oracle: Oracle) -> dict[str, Answer]:
    return expected_answers(oracle)


@pytest.fixture(scope="module")
def other_expected(other_oracle: Oracle) -> dict[str, Answer]:
    return expected_answers(other_oracle)


def check(got: tuple[list[int], list[float], int], expected: Answer) -> None:
    token_ids, logprobs, _ = got
    assert token_ids == expected.token_ids
    assert logprobs == pytest.approx(expected.logprobs, abs=1e-3)


def test_the_oracle_is_worth_agreeing_with(expected: dict[str, Answer], other_expected: dict[str, Answer]) -> None:
    for answers in (expected, other_expected):
        assert all(len(set(answer.token_ids)) > NUM_TOKENS / 2 for answer in answers.values())
        assert len({tuple(answer.token_ids) for answer in answers.values()}) == len(answers)


@pytest.mark.parametrize("name", conversations())
async def test_equals_transformers_cold_and_from_the_prefix_cache(
    engine: EngineClient, other_oracle: Oracle, other_expected: dict[str, Answer], shared_memory: Path, name: str
) -> None:
    prompt = prompt_of(other_oracle, conversations()[name], shared_memory)
    check(await greedy(engine, prompt), other_expected[name])
    again = await greedy(engine, prompt)
    check(again, other_expected[name])
    assert again[2] >= len(prompt.token_ids) // 128 * 128 - 128, "the second time comes from the prefix cache"


async def test_equals_transformers_in_a_batch_of_eight(
    engine: EngineClient, other_oracle: Oracle, other_expected: dict[str, Answer], shared_memory: Path
) -> None:
    names = [*conversations()]
    assert len(names) == 8
    prompts = [prompt_of(other_oracle, conversations()[name], shared_memory) for name in names]
    answers = await asyncio.gather(*(greedy(engine, prompt) for prompt in prompts))
    for name, answer in zip(names, answers, strict=True):
        check(answer, other_expected[name])


@pytest.mark.parametrize("name", conversations())
async def test_equals_transformers_when_a_medium_spans_steps(
    cramped_engine: EngineClient, oracle: Oracle, expected: dict[str, Answer], shared_memory: Path, name: str
) -> None:
    check(await greedy(cramped_engine, prompt_of(oracle, conversations()[name], shared_memory)), expected[name])


async def test_equals_transformers_over_preemptions(
    cramped_engine: EngineClient, oracle: Oracle, shared_memory: Path
) -> None:
    """Eight answers begin in the 13 blocks there are, and would need 20 to end together."""
    before = (await cramped_engine.stats()).num_preemptions
    kinds = {name: conversations()[name] for name in ("text", "three pictures between text")}
    expected = {name: oracle.answer(turns, MANY_TOKENS) for name, turns in kinds.items()}
    names = [*kinds] * 4
    prompts = [prompt_of(oracle, kinds[name], shared_memory) for name in names]
    # Tenants of their own, or the prefix cache would let them share blocks.
    salted = [Prompt(prompt.token_ids, prompt.media, str(number)) for number, prompt in enumerate(prompts)]
    answers = await asyncio.gather(*(greedy(cramped_engine, prompt, MANY_TOKENS) for prompt in salted))
    for name, answer in zip(names, answers, strict=True):
        check(answer, expected[name])
    assert (await cramped_engine.stats()).num_preemptions > before
