"""Many requests at once, and requests whose client goes away."""

import asyncio
import itertools
from typing import Any

import httpx
import openai
import pytest

from tests.support.images import asked, clip_part, made_clip, picture_part, real_video, small_photos, text_part
from tests.support.serving import RunningServer

pytestmark = pytest.mark.engine


def bodies() -> list[list[dict[str, Any]]]:
    """Eight requests of mixed kinds."""
    a, b, c = small_photos()
    texts = [[text_part(f"Tell me about the number {number}.")] for number in range(3)]
    return [
        *texts,
        [picture_part(a), text_part("What is it?")],
        [picture_part(b), picture_part(c), text_part("Which is larger?")],
        [clip_part(made_clip(60)), text_part("What moves?")],
        [clip_part(real_video().read_bytes(), max_pixels=100 * 784), text_part("What happens?")],
        [text_part("And "), picture_part(c), text_part("?")],
    ]


async def test_eight_mixed_streams_interleave_and_equal_their_unstreamed_answers(server: RunningServer) -> None:
    arrivals: list[int] = []
    most_running = 0.0
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=300) as client:

        async def stream(number: int, parts: list[dict[str, Any]]) -> str:
            text = ""
            events = await client.chat.completions.create(
                model="tessera-test",
                messages=asked(*parts),
                temperature=0,
                max_tokens=96,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            async for event in events:
                arrivals.append(number)
                text += event.choices[0].delta.content or ""
            return text

        async def watch() -> None:
            nonlocal most_running
            while True:
                most_running = max(most_running, (await asyncio.to_thread(server.metrics))["tessera_requests_running"])
                await asyncio.sleep(0.05)

        watcher = asyncio.create_task(watch())
        together = await asyncio.gather(*(stream(number, parts) for number, parts in enumerate(bodies())))
        watcher.cancel()
        assert most_running >= 4
        turns = sum(a != b for a, b in itertools.pairwise(arrivals))
        assert turns > len(arrivals) / 4  # one after the other would change the speaker seven times
        for parts, streamed in zip(bodies(), together, strict=True):
            alone = await client.chat.completions.create(
                model="tessera-test",
                messages=asked(*parts),
                temperature=0,
                max_tokens=96,
                extra_body={"ignore_eos": True},
            )
            assert alone.choices[0].message.content == streamed


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_goes_away_frees_its_place_at_once(server: RunningServer, stream: bool) -> None:
    body = {
        "model": "tessera-test",
        "messages": [{"role": "user", "content": "Go on forever."}],
        "max_tokens": 20_000,
        "ignore_eos": True,
        "stream": stream,
    }
    async with httpx.AsyncClient(timeout=120) as client:
        request = asyncio.create_task(client.post(f"{server.url}/v1/chat/completions", json=body))
        async with asyncio.timeout(60):
            while (await asyncio.to_thread(server.metrics))["tessera_requests_running"] < 1:
                await asyncio.sleep(0.05)
        request.cancel()
    async with asyncio.timeout(30):  # a second on an idle machine
        while (await asyncio.to_thread(server.metrics))["tessera_requests_running"] > 0:
            await asyncio.sleep(0.05)
