"""Token-for-token equality with transformers, HTTP in and text out, on the same float32 weights."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.images import asked, clip_part, data_url, encoded, picture_part, plain, text_part
from tests.support.oracle import Answer, Clip, Oracle, Still, Turn
from tests.support.prompts import NUM_TOKENS, conversations
from tests.support.serving import RunningServer
from training.random_checkpoint import CheckpointShape, write_random_checkpoint
from training.random_weights import VisionShape, WindowVisionShape

pytestmark = pytest.mark.engine

FLOAT32 = {"TESSERA_ENGINE__DTYPE": "float32"}
NUM_LONG_TOKENS = 224
"""Eight answers of this length do not fit the small KV cache together."""
TOWERS: dict[str, VisionShape | WindowVisionShape] = {"Qwen2-VL": VisionShape(), "Qwen2.5-VL": WindowVisionShape()}


@pytest.fixture(scope="module", params=TOWERS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of each family."""
    folder = tmp_path_factory.mktemp("models") / family
    write_random_checkpoint(folder, CheckpointShape(vision=TOWERS[family]))
    return folder


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[RunningServer]:
    """A ready server, computing in float32."""
    with RunningServer(checkpoint, FLOAT32) as running:
        yield running


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> dict[str, Answer]:
    oracle = Oracle(checkpoint)
    return {name: oracle.answer(turns, NUM_TOKENS) for name, turns in conversations().items()}


def as_messages(turns: list[Turn]) -> Any:
    def part(item: str | Still | Clip) -> dict[str, Any]:
        if isinstance(item, str):
            return text_part(item)
        return (
            picture_part(item.picture)
            if isinstance(item, Still)
            else clip_part(item.content, max_pixels=item.max_pixels, fps=item.fps)
        )

    return [
        {"role": role, "content": parts[0] if role in ("system", "assistant") else [part(item) for item in parts]}
        for role, parts in turns
    ]


async def ask(url: str, turns: list[Turn], max_tokens: int = NUM_TOKENS) -> tuple[int, list[str], list[float]]:
    """Prompt tokens, and the answer's tokens with their log-probabilities."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=300) as client:
        answer = await client.chat.completions.create(
            model="tessera-test",
            messages=as_messages(turns),
            temperature=0,
            max_tokens=max_tokens,
            logprobs=True,
            extra_body={"ignore_eos": True},
        )
    assert answer.usage is not None and answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content or []
    return answer.usage.prompt_tokens, [item.token for item in content], [item.logprob for item in content]


def check(got: tuple[int, list[str], list[float]], expected: Answer) -> None:
    num_prompt_tokens, tokens, logprobs = got
    assert num_prompt_tokens == expected.num_prompt_tokens
    assert tokens == expected.tokens
    assert logprobs == pytest.approx(expected.logprobs, abs=2e-3)


def test_the_oracle_is_worth_agreeing_with(expected: dict[str, Answer]) -> None:
    for answer in expected.values():
        assert len(set(answer.token_ids)) > NUM_TOKENS / 2
    assert len({tuple(answer.token_ids) for answer in expected.values()}) == len(expected)


@pytest.mark.parametrize("name", conversations())
async def test_equals_transformers_cold_and_from_the_prefix_cache(
    server: RunningServer, expected: dict[str, Answer], name: str
) -> None:
    turns = conversations()[name]
    check(await ask(server.url, turns), expected[name])
    check(await ask(server.url, turns), expected[name])


async def test_equals_transformers_in_a_batch_of_eight(server: RunningServer, expected: dict[str, Answer]) -> None:
    names = [*conversations()]
    assert len(names) == 8
    answers = await asyncio.gather(*(ask(server.url, conversations()[name]) for name in names))
    for name, answer in zip(names, answers, strict=True):
        check(answer, expected[name])


@pytest.fixture(scope="module")
def cramped(checkpoint: Path) -> Iterator[RunningServer]:
    """Prefill in steps of 64 tokens, and a KV cache so small that eight requests must preempt one another."""
    settings = {
        **FLOAT32,
        "TESSERA_ENGINE__MAX_NUM_BATCHED_TOKENS": "64",
        "TESSERA_ENGINE__MAX_MODEL_LEN": "2048",
        "TESSERA_ENGINE__KV_CACHE_BYTES": str(9 << 20),
        "TESSERA_MEDIA__MAX_REQUEST_S": "1e9",
    }
    with RunningServer(checkpoint, settings) as running:
        yield running


@pytest.mark.parametrize("name", conversations())
async def test_equals_transformers_when_a_medium_spans_steps(
    cramped: RunningServer, expected: dict[str, Answer], name: str
) -> None:
    check(await ask(cramped.url, conversations()[name]), expected[name])


async def test_equals_transformers_over_a_preemption(cramped: RunningServer, checkpoint: Path) -> None:
    names = ["text", "three pictures between text"]
    oracle = Oracle(checkpoint)
    long_answers = {name: oracle.answer(conversations()[name], NUM_LONG_TOKENS) for name in names}
    asks = [ask(cramped.url, conversations()[name], NUM_LONG_TOKENS) for name in names * 4]
    answers = await asyncio.gather(*asks)
    assert cramped.metrics()["tessera_preemptions_total"] > 0
    for name, answer in zip(names * 4, answers, strict=True):
        check(answer, long_answers[name])


async def ask_of_frames(url: str, fps: float) -> httpx.Response:
    """Ask about eight frames that were sampled at a rate."""
    frames = [data_url(encoded(plain(56, 56, f"rgb({30 * number},0,90)")), "image/png") for number in range(8)]
    parts = [{"type": "video", "video": frames, "fps": fps}, text_part("What happens?")]
    body = {"model": "tessera-test", "messages": asked(*parts), "temperature": 0, "max_tokens": 16, "ignore_eos": True}
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        return await client.post("/v1/chat/completions", json=body)


async def test_the_rate_of_frames_is_part_of_what_is_cached(server: RunningServer, family: str) -> None:
    """Where it counts at all: Qwen2-VL's positions do not know it."""
    slow, fast, again = [
        (await ask_of_frames(server.url, fps)).json()["choices"][0]["message"]["content"] for fps in (0.1, 2, 0.1)
    ]
    assert slow == again
    assert (slow != fast) == (family == "Qwen2.5-VL")


async def test_videos_longer_than_there_are_positions_are_refused(cramped: RunningServer, family: str) -> None:
    answer = await ask_of_frames(cramped.url, 1e-4)
    assert answer.status_code == (400 if family == "Qwen2.5-VL" else 200)
    if answer.status_code == 400:
        assert "last too long together" in answer.json()["error"]["message"]
