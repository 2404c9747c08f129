"""The server, measured from the outside through HTTP."""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import openai

from benchmarks.inputs import DECODE_BATCHES, DECODE_TOKENS, QUESTION, REPEATS, clip, jpeg
from tests.support.images import asked, data_url, text_part
from tests.support.serving import RunningServer


def measure(model: Path) -> dict[str, float]:
    """Rows of the table: name to milliseconds (start-up: seconds)."""
    started = time.monotonic()
    settings = {"TESSERA_ENGINE__DTYPE": "float32", "TESSERA_ENGINE__WARM_STANDBY": "false"}  # its imports take a core
    with RunningServer(model, settings) as server:
        rows = asyncio.run(_measure(server.url, started))
        rows["port open, s"] = server.listening_s
    return rows


async def _measure(url: str, started: float) -> dict[str, float]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=600) as client:
        await _ask(client, [text_part("Hello")], 1)
        rows = {"start to first token, s": time.monotonic() - started}
        await _ask(client, [text_part("Warm up.")], 32)
        for batch in DECODE_BATCHES:
            rows[f"decode step, batch {batch}, ms"] = await _decode_ms(client, batch)
        firsts, agains = [], []
        for seed in range(REPEATS):
            picture = {"type": "image_url", "image_url": {"url": data_url(jpeg(seed), "image/jpeg")}}
            firsts.append(await _ask(client, [picture, text_part(QUESTION)], 1))
            agains.append(await _ask(client, [picture, text_part(QUESTION)], 1))
        rows["first token, 1280x960 JPEG, new, ms"] = statistics.median(firsts) * 1000
        rows["first token, 1280x960 JPEG, repeated, ms"] = statistics.median(agains) * 1000
        parts = [{"type": "video_url", "video_url": {"url": data_url(clip(), "video/mp4")}}, text_part(QUESTION)]
        rows["first token, 30 s 720p clip, new, ms"] = await _ask(client, parts, 1) * 1000
        again = [await _ask(client, parts, 1) for _ in range(REPEATS)]
        rows["first token, 30 s 720p clip, repeated, ms"] = statistics.median(again) * 1000
    return rows


async def _decode_ms(client: openai.AsyncOpenAI, batch: int) -> float:
    """Median milliseconds a step takes while `batch` answers are generated together."""
    times: list[list[float]] = [[] for _ in range(batch)]
    asks = (
        _ask(client, [text_part(f"Tell a story about {number}.")], DECODE_TOKENS, arrivals)
        for number, arrivals in enumerate(times)
    )
    await asyncio.gather(*asks)
    begin = max(arrivals[0] for arrivals in times)
    end = min(arrivals[-1] for arrivals in times)
    together = [[moment for moment in arrivals if begin <= moment <= end] for arrivals in times]
    gaps = [(arrivals[-1] - arrivals[0]) / (len(arrivals) - 1) for arrivals in together]
    return statistics.median(gaps) * 1000


async def _ask(
    client: openai.AsyncOpenAI, parts: list[dict[str, Any]], max_tokens: int, arrivals: list[float] | None = None
) -> float:
    """Seconds to the first token; the arrival of every token where asked for."""
    sent = time.monotonic()
    events = await client.chat.completions.create(
        model="tessera-test",
        messages=asked(*parts),
        temperature=0,
        max_tokens=max_tokens,
        logprobs=arrivals is not None,  # an event for every token, also where its text is still undecided
        stream=True,
        extra_body={"ignore_eos": True},
    )
    first = None
    async for event in events:
        now = time.monotonic()
        if event.choices and (
            event.choices[0].logprobs or event.choices[0].delta.content or event.choices[0].finish_reason
        ):
            first = first or now
            if arrivals is not None:
                arrivals.append(now)
    assert first is not None
    return first - sent
