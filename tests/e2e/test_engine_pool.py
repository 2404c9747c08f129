"""Two real engines in one server: placement, caches, answers, losses and restarts as clients and metrics see them."""

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.support.images import asked, photo, picture_part, text_part
from tests.support.serving import RunningServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.slow]

MODEL = "tessera-tiny"
SETTINGS = {"TESSERA_MEDIA__NUM_WORKERS": "1", "TESSERA_ENGINE__WARM_STANDBY": "true"}
QUESTIONS = ("What is in this picture?", "Which colors are there?", "How many shapes are there?")
NUM_IMAGES = 6
RATES = ("encoder_cache_queries", "encoder_cache_hits", "prefix_cache_queries", "prefix_cache_hits")


@pytest.fixture(scope="module")
def pooled() -> Iterator[RunningServer]:
    with RunningServer(None, {**SETTINGS, "TESSERA_ENGINE__REPLICAS": "2"}) as running:
        both_ready(running)
        yield running


def both_ready(server: RunningServer, timeout_s: float = 240) -> None:
    deadline_s = time.monotonic() + timeout_s
    while of_replicas(server, "state", ',state="ready"') != [1, 1]:
        assert time.monotonic() < deadline_s, "an engine is missing:\n" + server.tail()
        time.sleep(0.1)


def of_replicas(server: RunningServer, name: str, labels: str = "") -> list[float]:
    metrics = server.metrics()
    return [metrics.get(f'tessera_replica_{name}{{replica="{number}"{labels}}}', 0) for number in range(2)]


def engine_pids(server: RunningServer) -> set[int]:
    """The engine processes and the standby: the server's own children, not what these have forked."""
    tasks = Path(f"/proc/{server.pid}/task").glob("*/children")
    own = {int(child) for task in tasks for child in task.read_text().split()}
    return {pid for pid, line in server.processes().items() if pid in own and "engine_process.main" in line}


def ask_all(server: RunningServer) -> list[str]:
    """Every question about every image, the images in turn."""
    texts = []
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=240) as client:
        for question in QUESTIONS:
            for number in range(NUM_IMAGES):
                image = photo().resize((224 + 28 * number, 224))
                answer = client.chat.completions.create(
                    model=MODEL,
                    messages=asked(picture_part(image), text_part(question)),
                    temperature=0,
                    max_tokens=24,
                )
                texts.append(answer.choices[0].message.content or "")
    return texts


def test_caches_and_answers_are_those_of_one_engine(pooled: RunningServer) -> None:
    answers = ask_all(pooled)
    encoded = of_replicas(pooled, "encoder_cache_queries_total")
    assert sum(encoded) == NUM_IMAGES * len(QUESTIONS)
    assert all(count > 0 and count % len(QUESTIONS) == 0 for count in encoded), "each image meets one engine"
    rates = [pooled.metrics()[f"tessera_{name}_total"] for name in RATES]
    with RunningServer(None, SETTINGS) as single:
        assert ask_all(single) == answers
        assert [single.metrics()[f"tessera_{name}_total"] for name in RATES] == rates


async def stream(server: RunningServer, number: int, kind: Counter[str]) -> None:
    """One streamed answer of its own text; counts how it ended."""
    body = {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": f"Request {number}: tell me a long story."}],
        "max_tokens": 400,
        "ignore_eos": True,
    }
    async with httpx.AsyncClient(timeout=240) as client:
        async with client.stream("POST", f"{server.url}/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                kind[f"status {response.status_code}"] += 1
                return
            lines = [line async for line in response.aiter_lines() if line.startswith("data: ")]
    if lines[-1] == "data: [DONE]" and not any('"error"' in line for line in lines):
        kind["whole"] += 1
    else:
        kind["begun, then an error" if len(lines) > 1 else "an error only"] += 1


async def test_a_killed_engine_costs_only_the_streams_it_had_begun(pooled: RunningServer) -> None:
    wait_until(pooled.standby_is_ready)
    ended: Counter[str] = Counter()
    streams = [asyncio.create_task(stream(pooled, number, ended)) for number in range(16)]
    while sum(of_replicas(pooled, "requests_running")) < 8:
        await asyncio.sleep(0.1)
    victim = min(engine_pids(pooled))
    others = engine_pids(pooled) - {victim}
    os.kill(victim, signal.SIGKILL)
    killed_s = time.monotonic()
    more = [asyncio.create_task(stream(pooled, number, ended)) for number in range(16, 24)]
    for _ in range(5):  # ready all the time
        assert httpx.get(f"{pooled.url}/health").status_code == 200
        await asyncio.sleep(0.1)
    await asyncio.gather(*streams, *more)
    assert set(ended) <= {"whole", "begun, then an error"} and ended["whole"] >= 16, ended
    both_ready(pooled)
    print(f"{dict(ended)}; both engines ready {time.monotonic() - killed_s:.1f} s after one was killed")
    assert others <= engine_pids(pooled)


async def test_engines_are_replaced_on_a_signal_without_a_refused_request(pooled: RunningServer) -> None:
    before = engine_pids(pooled)
    os.kill(pooled.pid, signal.SIGUSR1)
    ended: Counter[str] = Counter()
    number = 100
    deadline_s = time.monotonic() + 240
    while not any(re.search("all 2 engines have been restarted", line) for line in pooled.log):
        assert time.monotonic() < deadline_s, pooled.tail()
        await asyncio.gather(*(stream(pooled, number + each, ended) for each in range(4)))
        number += 4
    assert set(ended) == {"whole"}
    both_ready(pooled)
    assert ended.total() >= 4 and len(before & engine_pids(pooled)) <= 1  # the former standby may have taken over
