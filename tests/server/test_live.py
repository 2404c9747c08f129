"""A real server on a real socket: timing of events, departures, limits, slow clients, draining."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from model_executor.engine import EngineState, Prompt, SamplingParams
from server.core.errors import BadRequestError
from server.media.progress import FrameCount
from tests.support.error_body import check_error, check_error_body
from tests.support.fakes import MODEL, FakeEngine, FakeMedia, Step, say
from tests.support.raw_http import connection, raw_request
from tests.support.waiting import until
from tests.support.world import OpenWorld, ServerFixture

pytestmark = pytest.mark.slow

ROUTE = "/v1/chat/completions"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


async def test_each_event_arrives_when_it_is_made(open_world: OpenWorld) -> None:
    go_on = asyncio.Event()

    def script(_: Prompt, __: SamplingParams) -> list[Step]:
        first, second = say("one", "two")
        return [first, go_on, second]

    async with open_world(engine=FakeEngine(script=script), live=True) as world:
        async with world.client.stream("POST", ROUTE, json=world.body(stream=True)) as response:
            lines = response.aiter_lines()
            async for line in lines:
                if "one" in line:
                    break
            go_on.set()  # the second delta is made only after the first was seen
            rest = [line async for line in lines if line]
    assert "two" in rest[0] and rest[-1] == "data: [DONE]"


async def test_comments_come_while_media_are_prepared(open_world: OpenWorld) -> None:
    async with open_world(media=FakeMedia(delay_s=0.35), live=True, keep_alive_s=0.1) as world:
        body = world.body(stream=True, messages=[{"role": "user", "content": [IMAGE]}])
        async with world.client.stream("POST", ROUTE, json=body) as response:
            lines = [line async for line in response.aiter_lines() if line]
    assert lines[:2] == [": keep-alive"] * 2
    assert lines[-1] == "data: [DONE]"


async def test_comments_tell_how_far_media_are_and_the_official_client_does_not_mind(open_world: OpenWorld) -> None:
    media = FakeMedia(delay_s=0.25, frames=FrameCount(37, 50))
    messages: Any = [{"role": "user", "content": [IMAGE, IMAGE]}]
    async with open_world(media=media, live=True, keep_alive_s=0.1) as world:
        body = world.body(stream=True, messages=messages)
        async with world.client.stream("POST", ROUTE, json=body) as response:
            lines = [line async for line in response.aiter_lines() if line]
        async with AsyncOpenAI(base_url=f"{world.url}/v1", api_key="unused") as client:
            stream = await client.chat.completions.create(model=MODEL, messages=messages, stream=True)
            texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert lines[:2] == [": preparing media 37 %"] * 2
    assert "".join(texts) == "Hello, world!"


async def test_a_failure_found_in_time_is_an_http_error_on_a_stream(open_world: OpenWorld) -> None:
    media = FakeMedia(delay_s=0.2, failure=BadRequestError("no", param="messages[0].content[0].image_url"))
    async with open_world(media=media, live=True, keep_alive_s=5) as world:
        response = await world.ask(stream=True, messages=[{"role": "user", "content": [IMAGE]}])
        check_error(response, 400, param="messages[0].content[0].image_url")


def endless(_: Prompt, __: SamplingParams) -> list[Step]:
    return [step for delta in say(*["word "] * 10_000) for step in (delta, 0.01)]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_place_at_once(open_world: OpenWorld, stream: bool) -> None:
    engine, media = FakeEngine(script=endless), FakeMedia()
    async with open_world(engine=engine, media=media, live=True) as world:
        body = world.body(stream=stream, messages=[{"role": "user", "content": [IMAGE]}])
        async with connection(world) as (reader, writer):
            writer.write(raw_request(json.dumps(body).encode()))
            await until(lambda: engine.running)
            if stream:
                await reader.readuntil(b"word")
            assert media.held and not engine.aborted
        await until(lambda: engine.aborted)
        assert not engine.running
        await until(lambda: not media.held, 1)
        assert (await world.client.get("/health")).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_media_are_prepared_stops_that(open_world: OpenWorld, stream: bool) -> None:
    class Slow(FakeMedia):
        stopped = False

        async def prepare(self, parts: Any, tenant: str, progress: Any = None) -> Any:
            self.parts += parts
            try:
                await asyncio.sleep(60)
            finally:
                self.stopped = True

    media = Slow()
    async with open_world(media=media, live=True) as world:
        body = world.body(stream=stream, messages=[{"role": "user", "content": [IMAGE]}])
        async with connection(world) as (_, writer):
            writer.write(raw_request(json.dumps(body).encode()))
            await until(lambda: media.parts)
        await until(lambda: media.stopped, 1)
    assert not world.engine.prompts


async def test_a_departure_is_logged_as_such(open_world: OpenWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tessera.access")
    engine = FakeEngine(script=lambda *_: [60.0])
    async with open_world(engine=engine, live=True) as world:
        async with connection(world) as (_, writer):
            writer.write(raw_request(json.dumps(world.body()).encode()))
            await until(lambda: engine.running)
        await until(lambda: caplog.records)
    assert [record.fields["status"] for record in caplog.records] == [499]  # type: ignore[attr-defined]


async def test_a_body_declared_too_large_is_refused_before_it_is_sent(open_world: OpenWorld) -> None:
    async with open_world(live=True, max_body_bytes=2000) as world, connection(world) as (reader, writer):
        writer.write(raw_request(b"", "expect: 100-continue", length=10**9))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 413")


async def test_a_body_that_grows_too_large_is_refused_while_it_is_sent(open_world: OpenWorld) -> None:
    async with open_world(live=True, max_body_bytes=2000) as world, connection(world) as (reader, writer):
        writer.write(f"POST {ROUTE} HTTP/1.1\r\nhost: t\r\n".encode())
        writer.write(b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(3):
            writer.write(b"3e8\r\n" + b" " * 1000 + b"\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 413")


async def test_a_large_body_refused_still_reaches_an_ordinary_client(open_world: OpenWorld) -> None:
    async with open_world(live=True, max_body_bytes=2000) as world:
        response = await world.client.post(
            ROUTE, content=b" " * (4 << 20), headers={"content-type": "application/json"}
        )
        check_error(response, 413, code="body_too_large")


async def test_a_key_is_asked_for_before_the_body_is_sent(open_world: OpenWorld) -> None:
    async with open_world(live=True, api_key="secret") as world, connection(world) as (reader, writer):
        writer.write(raw_request(b"", "expect: 100-continue", length=1000))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 401")
    assert b"www-authenticate: bearer" in head.lower()


async def test_a_client_that_sends_its_body_slowly_is_served(world: ServerFixture, open_world: OpenWorld) -> None:
    async with open_world(live=True) as live, connection(live) as (reader, writer):
        request = raw_request(json.dumps(live.body()).encode(), "connection: close")
        for start in range(0, len(request), 40):
            writer.write(request[start : start + 40])
            await writer.drain()
            await asyncio.sleep(0.01)
        answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 200") and b"Hello, world!" in answer


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_forgotten(open_world: OpenWorld) -> None:
    async with open_world(live=True) as world:
        before = asyncio.all_tasks()
        async with connection(world) as (_, writer):
            writer.write(raw_request(b'{"model"', length=1000))
            await until(lambda: asyncio.all_tasks() - before)  # the request's
        await until(lambda: not asyncio.all_tasks() - before)
        assert (await world.ask()).status_code == 200
        text = (await world.client.get("/metrics")).text
    assert 'status="5xx"' not in text


async def test_a_client_that_reads_slowly_gets_everything_and_slows_only_itself(open_world: OpenWorld) -> None:
    big = "x" * 100_000
    engine = FakeEngine(script=lambda *_: list(say(*[big] * 200)))
    async with open_world(engine=engine, live=True) as world:
        async with world.client.stream("POST", ROUTE, json=world.body(stream=True)) as response:
            await asyncio.sleep(0.3)
            assert engine.running  # 20 MB do not fit into the socket: the engine's stream waits
            other = await asyncio.wait_for(world.client.get("/health"), 10)
            assert other.status_code == 200
            text = "".join([part async for part in response.aiter_text()])
    assert text.count("x" * 100_000) == 200 and text.endswith("data: [DONE]\n\n")


async def test_a_client_that_reads_nothing_and_leaves_frees_its_place(open_world: OpenWorld) -> None:
    big = "x" * 1_000_000
    engine = FakeEngine(script=lambda *_: list(say(*[big] * 200)))
    async with open_world(engine=engine, live=True) as world:
        async with connection(world) as (_, writer):
            writer.write(raw_request(json.dumps(world.body(stream=True)).encode()))
            await until(lambda: engine.running)
            await asyncio.sleep(0.2)
            assert engine.running
            writer.transport.abort()
        await until(lambda: engine.aborted)


async def test_a_late_failure_ends_the_stream_in_good_form(open_world: OpenWorld) -> None:
    first, _ = say("one", "two")
    engine = FakeEngine(script=lambda *_: [first, 0.05, RuntimeError("lost")])
    async with open_world(engine=engine, live=True) as world:
        text = (await world.ask(stream=True)).text
    *_, error, done, end = text.split("\n\n")
    check_error_body(json.loads(error.removeprefix("data: ")), 500)
    assert (done, end) == ("data: [DONE]", "")


async def test_eight_streams_run_at_the_same_time(open_world: OpenWorld) -> None:
    all_run = asyncio.Event()
    first, last = say("a", "b")
    engine = FakeEngine(script=lambda *_: [first, all_run, last])
    async with open_world(engine=engine, live=True) as world:
        asking = [asyncio.create_task(world.ask(stream=True)) for _ in range(8)]
        await until(lambda: len(engine.running) == 8)
        all_run.set()
        answers = await asyncio.gather(*asking)
    assert all(answer.text.endswith("[DONE]\n\n") for answer in answers)


@pytest.mark.parametrize("stream", [False, True])
async def test_running_answers_finish_when_the_server_is_told_to_stop(open_world: OpenWorld, stream: bool) -> None:
    engine = FakeEngine(script=lambda *_: [step for delta in say(*"abcd") for step in (0.1, delta)])
    async with open_world(engine=engine, live=True) as world:
        asking = asyncio.create_task(world.ask(stream=stream))
        await until(lambda: engine.running)
        world.stop()
        answer = await asking
        with pytest.raises(httpx.ConnectError):
            await httpx.AsyncClient().get(f"{world.url}/health")
    assert answer.status_code == 200
    assert answer.text.endswith("[DONE]\n\n") if stream else answer.json()["choices"][0]["message"]["content"] == "abcd"


async def test_answers_that_do_not_finish_in_time_are_cut_with_an_error(open_world: OpenWorld) -> None:
    engine, media = FakeEngine(script=lambda *_: [60.0]), FakeMedia()
    async with open_world(engine=engine, media=media, live=True, shutdown_timeout_s=0.2) as world:
        asking = asyncio.create_task(world.ask(messages=[{"role": "user", "content": [IMAGE]}]))
        await until(lambda: engine.running)
        world.stop()
        check_error(await asking, 503, code="engine_unavailable")
    assert engine.aborted and not media.held


async def test_a_second_signal_cuts_the_answers_still_running(open_world: OpenWorld) -> None:
    engine = FakeEngine(script=lambda *_: [60.0])
    async with open_world(engine=engine, live=True) as world:
        asking = asyncio.create_task(world.ask())
        await until(lambda: engine.running)
        world.stop()
        await asyncio.sleep(0.1)
        assert not asking.done()
        world.stop()
        check_error(await asking, 503, code="engine_unavailable")
    assert engine.aborted


async def test_tells_where_the_model_is_in_its_life(open_world: OpenWorld, capsys: pytest.CaptureFixture[str]) -> None:
    engine, told = FakeEngine(), ""

    async def tells(words: str) -> None:
        nonlocal told
        async with asyncio.timeout(60):
            while words not in told:
                await asyncio.sleep(0.05)
                told += capsys.readouterr().out

    async with open_world(engine=engine, live=True) as world:
        await tells(f"listens on {world.url}")
        await tells(f"Open {world.url}/ in a browser; the API is at {world.url}/v1")
        engine.state = EngineState.RESTARTING
        await tells("being restarted")
        engine.state = EngineState.READY
        await tells("Ready again")


async def test_ends_when_the_engine_has_failed_for_good(
    open_world: OpenWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine()
    async with open_world(engine=engine, live=True) as world:
        engine.state, engine.failure = EngineState.FAILED, "the weights are damaged"
        await until(lambda: "the weights are damaged" in capsys.readouterr().err)
        async with asyncio.timeout(60):
            with pytest.raises(httpx.ConnectError):
                while True:
                    await httpx.AsyncClient().get(f"{world.url}/health")
