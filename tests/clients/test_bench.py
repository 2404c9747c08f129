"""`tessera bench` against live servers: it counts what the server counts, and measures what was done."""

import asyncio
import base64
import io
import json
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model_executor.engine import Delta, EngineStats, Prompt, SamplingParams
from tessera_cli.bench import spread
from tessera_cli.server_metrics import parse
from tessera_cli.synthetic import CLIP_RATE, Shape, image_url, video_url
from tests.clients.conftest import tessera
from tests.support.fakes import FakeEngine, Script, Step, say
from tests.support.world import OpenWorld, ServerFixture

pytestmark = pytest.mark.slow

QUICK = ("--requests", "6", "--concurrency", "1", "3", "--video-seconds", "0.5", "--image-size", "64x48")


async def test_its_counts_are_the_servers_counts(live: ServerFixture) -> None:
    done = await tessera("bench", *QUICK, "--mix", "text=1,image=1,video=1", "--json", "--url", live.url)
    assert done.code == 0, done.err
    levels = json.loads(done.out)
    assert [level["concurrency"] for level in levels] == [1, 3]
    for level in levels:
        assert level["kinds"] == {"text": 2, "image": 2, "video": 2}
        assert level["counted_here"]["requests"] == 6 and level["counted_here"]["answer_tokens"] == 18
        assert level["counted_by_server"]["http"] == level["counted_here"]
    # Three to warm up, one of each kind, and twelve that are measured, all of them different.
    assert len(live.engine.prompts) == 15
    assert Counter(part.modality for part in live.media.parts) == {"image": 5, "video": 5}
    assert len({part.source for part in live.media.parts}) == 10


async def test_measures_what_the_engine_takes(open_world: OpenWorld) -> None:
    pieces = say("a", "b", "c", "d")
    script: list[Step] = [0.2, pieces[0], 0.1, pieces[1], 0.1, pieces[2], 0.1, pieces[3]]
    async with open_world(live=True, engine=FakeEngine(script=lambda *_: script)) as world:
        options = ("--requests", "4", "--concurrency", "2", "--mix", "text", "--ignore-eos", "--json")
        done = await tessera("bench", *options, "--url", world.url)
        assert all(limits.ignore_eos for limits in world.engine.limits)
    (level,) = json.loads(done.out)
    assert 0.2 <= level["first_token_s"]["p50"] < 20
    assert 0.08 <= level["inter_token_s"]["p50"] < 10
    assert 0.5 <= level["answer_s"]["p50"] < 50
    assert level["requests_per_s"] == pytest.approx(4 / level["duration_s"])
    assert level["duration_s"] >= 2 * 0.5  # two at a time


async def test_prints_a_table_and_says_that_somebody_else_asks(live: ServerFixture) -> None:
    done = await tessera("bench", "--requests", "3", "--concurrency", "1", "--mix", "text", "--url", live.url)
    rows = {line[:19].strip(): line[19:].split() for line in done.out.splitlines()}
    mean, *percentiles = map(float, rows["time to first token"])
    assert 0 < percentiles[0] <= percentiles[1] <= percentiles[2] and mean <= percentiles[2]
    assert rows["requests answered"] == ["3", "3", "equal"]
    assert rows["answer tokens"][:4] == ["9", "9", "0", "differs:"]  # a fake engine's own readings stay at nought


async def test_asks_several_servers_in_turn_and_tells_what_their_caches_had(
    open_world: OpenWorld, tmp_path: Path
) -> None:
    def counting(engine: FakeEngine) -> Script:
        def script(prompt: Prompt, limits: SamplingParams) -> list[Delta]:
            asked = len(engine.prompts)
            engine.readings = EngineStats(encoder_cache_queries=asked, encoder_cache_hits=asked // 2)
            return say("a", "b", "c")

        return script

    engines = [FakeEngine(), FakeEngine()]
    for engine in engines:
        engine.script = counting(engine)
    options = ("--requests", "8", "--concurrency", "2", "--mix", "image", "--repeat", "1", "--image-size", "64x48")
    async with AsyncExitStack() as stack:
        worlds = [
            await stack.enter_async_context(open_world(live=True, engine=engine, data_dir=tmp_path / str(number)))
            for number, engine in enumerate(engines)
        ]
        urls = [world.url for world in worlds]
        done = await tessera("bench", *options, "--json", "--url", *urls)
        shown = await tessera("bench", *options, "--url", *urls)
    assert done.code == 0, done.err
    (level,) = json.loads(done.out)
    assert level["counted_by_server"]["http"] == level["counted_here"]
    assert [level["caches"][url]["encoder"] for url in urls] == [[2, 4], [2, 4]]  # after one each to warm up
    assert all(len({part.source for part in world.media.parts}) == 4 for world in worlds)  # of 10: each run repeats one
    assert all(f"caches of {url} had: encoder 50% of 4" in shown.out for url in urls)


async def test_says_what_was_not_answered(open_world: OpenWorld) -> None:
    async with open_world(live=True, engine=FakeEngine(script=lambda *_: [RuntimeError("lost")])) as world:
        done = await tessera("bench", "--requests", "3", "--concurrency", "1", "--mix", "text", "--url", world.url)
    assert done.code == 1 and "3 not answered: status 500" in done.out


async def test_measures_a_server_that_is_not_tessera() -> None:
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "other"}
    events = [
        {**chunk, "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]},
        {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**chunk, "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}},
    ]
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            status, kind, body = "200 OK", "text/event-stream", stream
        elif b"/models" in head:
            status, kind, body = "200 OK", "application/json", '{"object": "list", "data": [{"id": "other"}]}'
        else:
            status, kind, body = "404 Not Found", "text/plain", "no"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        done = await tessera("bench", "--requests", "2", "--concurrency", "2", "--mix", "text", "--json", "--url", url)
    (level,) = json.loads(done.out)
    assert done.code == 0 and level["counted_by_server"] is None
    assert level["counted_here"] == {"requests": 2, "prompt_tokens": 10, "answer_tokens": 4}


@given(
    st.dictionaries(st.sampled_from(["text", "image", "clip"]), st.floats(0.01, 100), min_size=1), st.integers(1, 200)
)
def test_every_kind_gets_its_share(mix: dict[str, float], num: int) -> None:
    counts = Counter(spread(mix, num))
    assert counts.total() == num
    for kind, share in mix.items():
        assert abs(counts[kind] - share / sum(mix.values()) * num) <= len(mix)


def test_made_pictures_and_clips_are_of_their_shape_and_differ() -> None:
    rng = np.random.default_rng(1)
    shape = Shape(96, 64, 1.5)
    urls = [image_url(rng, shape), image_url(rng, shape)]
    assert urls[0] != urls[1]
    assert Image.open(io.BytesIO(base64.b64decode(urls[0].partition(",")[2]))).size == (96, 64)
    with av.open(io.BytesIO(base64.b64decode(video_url(rng, shape).partition(",")[2])), "r") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 1.5 * CLIP_RATE and frames[0].shape == (64, 96, 3)
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 5  # it moves


def test_counts_are_read_from_a_page_of_metrics() -> None:
    page = (
        '# HELP x\ntessera_http_requests_total{method="POST",route="/v1/chat/completions",status="2xx"} 7.0\n'
        'tessera_http_requests_total{method="POST",route="/v1/chat/completions",status="4xx"} 2.0\n'
        "tessera_request_prompt_tokens_sum 100.0\ntessera_request_generation_tokens_sum 1.5e+02\n"
    )
    found = parse(page)
    assert found is not None
    assert (found.http.requests, found.http.prompt_tokens, found.http.answer_tokens) == (7, 100, 150)
    assert found.engine.prompt_tokens is None
    assert parse("vllm:prompt_tokens_total 3.0\n") is None
