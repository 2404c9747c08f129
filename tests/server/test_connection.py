"""What a connection may cost before a key has been seen: real sockets, raw bytes."""

import asyncio
import contextlib
import json

import pytest

from server import connection as limits
from tests.support.error_body import check_error_body
from tests.support.fakes import FakeEngine, say
from tests.support.raw_http import connection, raw_request
from tests.support.world import OpenWorld, ServerFixture

pytestmark = pytest.mark.slow

HEAD = b"GET /health HTTP/1.1\r\nhost: x\r\n"
CHUNKED = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"


async def exchange(world: ServerFixture, sent: bytes, timeout_s: float = 20) -> bytes:
    """Everything the server answers until it closes the connection."""
    async with connection(world) as (reader, writer):
        writer.write(sent)
        async with asyncio.timeout(timeout_s):
            return await reader.read()


def check_refusal(answer: bytes, status: int, code: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nconnection: close" in head
    check_error_body(json.loads(body), status, code=code)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(HEAD + b"X: a\r\n" * 130 + b"\r\n", id="fields"),
        pytest.param(HEAD + b"X: a\r\n" * 500_000, id="endless fields"),
        pytest.param(HEAD + b"X: " + b"a" * 70_000 + b"\r\n\r\n", id="one field"),
        pytest.param(HEAD + b"X: " + b"a" * 3_000_000, id="an endless field"),
        pytest.param(HEAD + (b"X: " + b"a" * 7_000 + b"\r\n") * 10 + b"\r\n", id="ten fields"),
        pytest.param(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", id="path"),
        pytest.param(b"GET /" + b"a" * 3_000_000, id="an endless path"),
        pytest.param(b"\r\n" * 1_000_000, id="endless line breaks"),
        pytest.param(CHUNKED + b"0\r\n" + b"X: a\r\n" * 200_000, id="trailers"),
        pytest.param(CHUNKED + b"0\r\nX: " + b"a" * 3_000_000, id="an endless trailer"),
    ],
)
async def test_a_head_or_trailers_without_end_are_refused(open_world: OpenWorld, sent: bytes) -> None:
    async with open_world(live=True, api_key="secret") as world:
        answer = await exchange(world, sent)
        if b"chunked" in sent:  # without a key, and with it the body would have been read on
            assert answer.startswith((b"HTTP/1.1 401", b"HTTP/1.1 431"))
        else:
            check_refusal(answer, 431, "head_too_large")
        assert (await world.client.get("/health")).status_code == 200


async def test_trailers_are_refused_while_a_body_is_read(open_world: OpenWorld) -> None:
    async with open_world(live=True) as world:
        head = CHUNKED.replace(b"host: x", b"host: x\r\ncontent-type: application/json")
        check_refusal(await exchange(world, head + b"0\r\n" + b"X: a\r\n" * 200), 431, "head_too_large")


async def test_what_people_send_is_answered(open_world: OpenWorld) -> None:
    async with open_world(live=True) as world:
        headers = {f"x-{number}": "a" * 600 for number in range(90)}
        assert (await world.client.get("/health", headers=headers)).status_code == 200
        body = json.dumps(world.body()).encode()
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\nx-checksum: 1\r\n\r\n"
        head = raw_request(b"", "connection: close").replace(b"content-length: 0", b"transfer-encoding: chunked")
        assert (await exchange(world, head + chunks)).startswith(b"HTTP/1.1 200")


async def test_trailers_are_no_headers(open_world: OpenWorld) -> None:
    async with open_world(live=True, api_key="secret") as world:
        trailer = b"0\r\nauthorization: Bearer secret\r\nx-request-id: mine\r\n\r\n"
        answer = await exchange(world, CHUNKED.replace(b"host: x", b"host: x\r\nconnection: close") + trailer)
        assert answer.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET /he", HEAD])
async def test_a_head_must_come_in_time(open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(limits, "HEAD_TIMEOUT_S", 0.2)
    async with open_world(live=True) as world:
        check_refusal(await exchange(world, sent, timeout_s=5), 408, "request_timeout")


async def test_a_later_head_must_come_in_time_and_idle_connections_stay(
    open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEAD_TIMEOUT_S", 0.2)
    async with open_world(live=True) as world, connection(world) as (reader, writer):
        for _ in range(2):
            writer.write(HEAD + b"\r\n")
            assert await reader.readuntil(b"}") and not reader.at_eof()
            await asyncio.sleep(0.4)
        writer.write(HEAD)
        async with asyncio.timeout(5):
            check_refusal(await reader.read(), 408, "request_timeout")


async def test_more_pipelined_requests_than_anybody_sends_are_refused(open_world: OpenWorld) -> None:
    async with open_world(live=True) as world:
        answer = await exchange(
            world, (HEAD + b"\r\n") * 16 + HEAD.replace(b"host", b"connection: close\r\nhost") + b"\r\n"
        )
        assert answer.count(b"HTTP/1.1 200") == 17
        answer = await exchange(world, (HEAD + b"\r\n") * 5_000)
        assert answer.count(b"HTTP/1.1 200") <= 17


async def test_a_refused_client_that_goes_on_sending_gets_its_answer(open_world: OpenWorld) -> None:
    async with open_world(live=True) as world, connection(world) as (reader, writer):
        writer.write(HEAD + b"X: a\r\n" * 2_000_000)  # more than the socket takes at once
        async with asyncio.timeout(20):
            check_refusal(await reader.readuntil(b"}}"), 431, "head_too_large")


async def test_a_body_must_go_on_coming(open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_WINDOW_S", 0.2)
    async with open_world(live=True) as world:
        check_refusal(await exchange(world, raw_request(b"{", length=100_000), timeout_s=5), 408, "request_timeout")
        refused = await world.client.get("/metrics")
        assert 'tessera_connections_refused_total{reason="request_timeout"} 1.0' in refused.text


async def test_a_slow_body_that_goes_on_coming_is_read(open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_WINDOW_S", 0.2)
    monkeypatch.setattr(limits, "MIN_WINDOW_BYTES", 10)
    async with open_world(live=True) as world, connection(world) as (reader, writer):
        request = raw_request(json.dumps(world.body()).encode(), "connection: close")
        head, _, body = request.partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        for start in range(0, len(body), 10):
            writer.write(body[start : start + 10])
            await asyncio.sleep(0.1)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")


async def test_a_stranger_is_not_read_on(open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINGER_S", 0.3)
    async with open_world(live=True, api_key="secret") as world, connection(world) as (reader, writer):
        writer.write(raw_request(b"{", length=50_000_000))
        assert (await reader.readuntil(b"}}")).startswith(b"HTTP/1.1 401")
        num_bytes = 0
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(10):
                while True:
                    writer.write(b" " * 100_000)
                    await writer.drain()
                    num_bytes += 100_000
                    await asyncio.sleep(0)
        assert num_bytes < 50_000_000


async def test_a_refusal_whose_body_has_come_keeps_the_connection(open_world: OpenWorld) -> None:
    async with open_world(live=True, api_key="secret") as world, connection(world) as (reader, writer):
        for _ in range(3):
            writer.write(raw_request(b"{}"))
            assert (await reader.readuntil(b"}}")).startswith(b"HTTP/1.1 401")


async def test_the_silent_give_way_when_connections_are_many(open_world: OpenWorld) -> None:
    async with open_world(live=True, max_connections=8) as world, contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(connection(world)) for _ in range(20)]
        async with asyncio.timeout(5):
            for reader, _ in silent[:12]:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
        for _ in range(3):
            assert (await world.ask()).status_code == 200


async def test_who_is_answered_does_not_give_way(open_world: OpenWorld) -> None:
    go_on = asyncio.Event()
    engine = FakeEngine(script=lambda *_: [go_on, *say("late")])
    async with open_world(live=True, engine=engine, max_connections=3) as world:
        asked = [asyncio.create_task(world.ask()) for _ in range(3)]
        while len(engine.running) < 3:
            await asyncio.sleep(0.01)
        check_refusal(await exchange(world, HEAD + b"\r\n"), 503, "too_many_connections")
        go_on.set()
        assert [(await one).status_code for one in asked] == [200] * 3
