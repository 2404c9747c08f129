"""Token-for-token equality of Qwen-VL with its description in float64, HTTP in and text out.

The rotary base grows where prompts pass the trained length, once and twice; most tests have a short one, so that this
is cheap to reach.
"""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from tests.e2e.test_exactness import NUM_LONG_TOKENS, ask, check
from tests.support.images import asked, clip_part, made_clip, small_photos, text_part
from tests.support.oracle import BICUBIC, Answer, Clip, Still, Turn, decoded
from tests.support.prompts import NUM_TOKENS
from tests.support.qwen_vl_oracle import QwenVLOracle
from tests.support.serving import RunningServer
from training.random_qwen_vl import QwenVLShape, write_random_qwen_vl

pytestmark = [pytest.mark.engine, pytest.mark.slow]

TRAINED_TOKENS = 512
FLOAT32 = {"TESSERA_ENGINE__DTYPE": "float32"}


def conversations() -> dict[str, list[Turn]]:
    """What is asked."""
    a, b, c = (Still(picture) for picture in small_photos())
    marked = "<ref>The cat</ref><box>(10,20),(300,400)</box>, <img>, <|im_end|> and"
    return {
        "text": [("user", ["Tell me about the sea. 再讲讲潮汐和月亮。"])],
        "picture": [("user", [a, "What is in this picture?"])],
        "answer beyond the trained length": [("user", ["sea " * (TRAINED_TOKENS - 35)])],
        "three pictures, beyond it": [("user", ["First ", a, " then ", b, marked, c, "\nWhich is the odd one?"])],
        "five pictures, beyond twice of it": [("user", [a, b, c, a, b, "How many?"])],
        "second turn": [
            ("system", ["Answer briefly."]),
            ("user", [a, "What is this?"]),
            ("assistant", ["A cat."]),
            ("user", ["\nAnd ", b, "?"]),
        ],
    }


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> QwenVLOracle:
    folder = tmp_path_factory.mktemp("models") / "qwen-vl"
    write_random_qwen_vl(folder, QwenVLShape(trained_tokens=TRAINED_TOKENS))
    return QwenVLOracle(folder)


@pytest.fixture(scope="module")
def expected(oracle: QwenVLOracle) -> dict[str, Answer]:
    return {name: oracle.answer(turns, NUM_TOKENS) for name, turns in conversations().items()}


@pytest.fixture(scope="module")
def server(oracle: QwenVLOracle) -> Iterator[RunningServer]:
    with RunningServer(oracle.folder, FLOAT32) as running:
        yield running


@pytest.fixture(scope="module")
def cramped(oracle: QwenVLOracle) -> Iterator[RunningServer]:
    """Prefill in steps of 64 tokens, and a KV cache so small that eight requests must preempt one another."""
    settings = {
        "TESSERA_ENGINE__MAX_NUM_BATCHED_TOKENS": "64",
        "TESSERA_ENGINE__MAX_MODEL_LEN": "2048",
        "TESSERA_ENGINE__KV_CACHE_BYTES": str(14 << 20),
    }
    with RunningServer(oracle.folder, FLOAT32 | settings) as running:
        yield running


def test_the_oracle_is_worth_agreeing_with(expected: dict[str, Answer]) -> None:
    assert all(len(set(answer.token_ids)) > NUM_TOKENS / 3 for answer in expected.values())
    lengths = {name: answer.num_prompt_tokens for name, answer in expected.items()}
    assert lengths["answer beyond the trained length"] <= TRAINED_TOKENS
    assert lengths["answer beyond the trained length"] + NUM_TOKENS > TRAINED_TOKENS
    assert TRAINED_TOKENS < lengths["three pictures, beyond it"] <= 2 * TRAINED_TOKENS
    assert lengths["five pictures, beyond twice of it"] > 2 * TRAINED_TOKENS


@pytest.mark.parametrize("name", conversations())
async def test_equals_the_oracle_cold_and_from_the_prefix_cache(
    server: RunningServer, expected: dict[str, Answer], name: str
) -> None:
    check(await ask(server.url, conversations()[name]), expected[name])
    check(await ask(server.url, conversations()[name]), expected[name])


async def test_equals_the_oracle_in_a_batch_of_eight_with_different_bases(
    server: RunningServer, expected: dict[str, Answer]
) -> None:
    names = [*conversations(), "text", "picture"]
    assert len(names) == 8
    answers = await asyncio.gather(*(ask(server.url, conversations()[name]) for name in names))
    for name, answer in zip(names, answers, strict=True):
        check(answer, expected[name])


@pytest.mark.parametrize("name", conversations())
async def test_equals_the_oracle_when_a_picture_spans_steps(
    cramped: RunningServer, expected: dict[str, Answer], name: str
) -> None:
    check(await ask(cramped.url, conversations()[name]), expected[name])


async def test_equals_the_oracle_over_a_preemption(cramped: RunningServer, oracle: QwenVLOracle) -> None:
    names = ["text", "three pictures, beyond it"]
    long_answers = {name: oracle.answer(conversations()[name], NUM_LONG_TOKENS) for name in names}
    asks = [ask(cramped.url, conversations()[name], NUM_LONG_TOKENS) for name in names * 4]
    answers = await asyncio.gather(*asks)
    assert cramped.metrics()["tessera_preemptions_total"] > 0
    for name, answer in zip(names * 4, answers, strict=True):
        check(answer, long_answers[name])


async def test_keys_are_not_shared_between_bases(server: RunningServer, oracle: QwenVLOracle) -> None:
    """A conversation that grows beyond the trained length begins as before, and is computed anew."""
    text = "moon " * (TRAINED_TOKENS - 40)
    short: list[Turn] = [("user", [text])]
    grown: list[Turn] = [*short, ("assistant", ["Yes. " * 20]), ("user", ["Why?"])]
    for turns in (short, grown, short):
        check(await ask(server.url, turns), oracle.answer(turns, NUM_TOKENS))


async def test_a_video_is_four_pictures(server: RunningServer, oracle: QwenVLOracle) -> None:
    clip = Clip(made_clip(31, rate=10, width=448, height=448))
    frames = [decoded(clip)[0][index] for index in (0, 10, 20, 30)]
    rgb = [frame.reformat(format="gbrp", interpolation=BICUBIC).to_ndarray() for frame in frames]
    shown = [Still(Image.fromarray(pixels)) for pixels in rgb]
    check(
        await ask(server.url, [("user", ["See ", clip, "What happens?"])]),
        oracle.answer([("user", ["See ", *shown, "What happens?"])], NUM_TOKENS),
    )
    messages = asked(clip_part(clip.content), text_part("What happens?"))
    body = {"model": "tessera-test", "messages": messages, "include": ["media"], "max_tokens": 1}
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        (report,) = (await client.post("/v1/chat/completions", json=body)).json()["tessera"]["media"]
    assert (report["modality"], report["frames"], report["tokens"]) == ("video", 4, 1024)
    assert report["timestamps"] == [0, 1, 2, 3]


async def test_tools_are_forced_or_refused(server: RunningServer) -> None:
    tool = {"type": "function", "function": {"name": "tide", "parameters": {"type": "object", "properties": {}}}}
    body = {"model": "tessera-test", "messages": asked(text_part("Hi.")), "tools": [tool], "max_tokens": 60}
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        refused = await client.post("/v1/chat/completions", json=body)
        forced = await client.post("/v1/chat/completions", json={**body, "tool_choice": "required"})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "tools"
    assert forced.status_code == 200
    assert forced.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "tide"
