"""Bodies that are too large, no JSON, or JSON of a kind that programs choke on."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.core.errors import RateLimitError
from server.middleware.body_limit import Arrivals
from tests.support.error_body import check_error
from tests.support.raw_http import connection, raw_request
from tests.support.world import OpenWorld, ServerFixture, Unread

ROUTE = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
TEXT = {"type": "text", "text": "x"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} {}",
        b"nonsense",
        b"{'model': 1}",
        b'{"model": "m",}',
        b'{"temperature": NaN}',
        b'{"temperature": Infinity}',
        b'{"temperature": -Infinity}',
        b'{"model": "\\ud800"}',
        b'{"model": "\\udc00 "}',
        b'{"\\ud800": 1}',
        b'{"model": "\xff"}',
        b'{"model": "\xed\xa0\x80"}',
        b'{"model": "\x00"}',
        b"\xef\xbb\xbf{}",
        '{"model": "m"}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 10_000,
        b'{"n": ' + b"9" * 10_000 + b"}",
        b"[]",
        b'"text"',
        b"null",
        b"5",
        b"true",
    ],
)
async def test_refuses_what_is_no_json_object(world: ServerFixture, body: bytes) -> None:
    check_error(await world.client.post(ROUTE, content=body, headers=JSON), 400, code="invalid_json")


@pytest.mark.parametrize(("number", "code"), [("1e999", "invalid_value"), ("1" + "0" * 400, "invalid_type")])
async def test_refuses_numbers_beyond_all_bounds(world: ServerFixture, number: str, code: str) -> None:
    body = json.dumps(world.body())[:-1] + f', "temperature": {number}}}'
    check_error(await world.client.post(ROUTE, content=body, headers=JSON), 400, param="temperature", code=code)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "json"},
        {"content-type": "\xff"},
    ],
)
async def test_refuses_other_content_types(world: ServerFixture, headers: dict[str, str]) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    response = await world.client.post(ROUTE, content=json.dumps(world.body()), headers=encoded)
    check_error(response, 400, code="invalid_content_type")


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
async def test_takes_json_however_it_is_spelt(world: ServerFixture, kind: str) -> None:
    response = await world.client.post(ROUTE, content=json.dumps(world.body()), headers={"content-type": kind})
    assert response.status_code == 200


async def test_refuses_compressed_bodies(world: ServerFixture) -> None:
    response = await world.client.post(ROUTE, content=b"x", headers={**JSON, "content-encoding": "gzip"})
    check_error(response, 400, code="invalid_content_encoding")


async def test_refuses_a_declared_body_over_the_limit_without_reading_it(open_world: OpenWorld) -> None:
    async with open_world(max_body_bytes=2000) as world:
        response = await world.client.post(ROUTE, content=Unread(), headers={**JSON, "content-length": "2001"})
        assert "2000" in check_error(response, 413, code="body_too_large")
        huge = {**JSON, "content-length": "9" * 40}
        check_error(await world.client.post(ROUTE, content=Unread(), headers=huge), 413, code="body_too_large")


async def test_refuses_an_undeclared_body_on_the_byte_too_many(open_world: OpenWorld) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1_000_000:
            sent += 1000
            yield b" " * 1000

    async with open_world(max_body_bytes=2000) as world:
        check_error(await world.client.post(ROUTE, content=body(), headers=JSON), 413, code="body_too_large")
    assert sent <= 3000


async def test_takes_a_body_of_exactly_the_limit(open_world: OpenWorld) -> None:
    async with open_world(max_body_bytes=2000) as world:
        body = json.dumps(world.body()).encode()
        response = await world.client.post(ROUTE, content=body + b" " * (2000 - len(body)), headers=JSON)
        assert response.status_code == 200


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_no_body_makes_a_500(world: ServerFixture, body: bytes) -> None:
    response = await world.client.post(ROUTE, content=body, headers=JSON)
    assert response.status_code == 400


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param({"messages": [{"role": "user", "content": "hi"}] * 100_000}, None, id="messages"),
        pytest.param({"messages": [{"role": "user", "content": "hi"}] * 5_000}, "messages", id="some messages"),
        pytest.param({"messages": [{"role": "user", "content": [TEXT] * 2_000}]}, "messages[0].content", id="parts"),
        pytest.param({f"k{number}": 1 for number in range(50_000)}, "k0", id="unknown fields"),
        pytest.param({f"k{number}": 1 for number in range(500_000)}, None, id="more unknown fields"),
        pytest.param({"metadata": {f"k{number}": 1 for number in range(50_000)}}, "metadata", id="metadata"),
        pytest.param({"logit_bias": {f"k{number}": "1" for number in range(50_000)}}, "logit_bias", id="bias"),
        pytest.param({"stop": ["a"] * 100_000}, "stop", id="stop"),
    ],
)
async def test_a_body_of_too_many_values_is_refused_before_they_are_looked_at(
    open_world: OpenWorld, body: dict[str, Any], param: str | None
) -> None:
    async with open_world(strict_requests=True) as world:
        content = json.dumps(world.body(**body)).encode()
        used_s = time.process_time()
        response = await world.client.post(ROUTE, content=content, headers={"content-type": "application/json"})
        used_s = time.process_time() - used_s
    if param is None:
        check_error(response, 413, code="body_too_large")
    else:
        assert response.json()["error"]["param"] == param
        assert response.status_code == 400
    assert used_s < 0.5


def test_one_client_cannot_take_the_room_for_the_bodies_of_all() -> None:
    arrivals = Arrivals(100)
    arrivals.add("greedy", 100)
    with pytest.raises(RateLimitError):
        arrivals.add("greedy", 1)
    arrivals.add("other", 50)
    with pytest.raises(RateLimitError):
        arrivals.add("other", 1)
    with pytest.raises(RateLimitError):
        arrivals.add("greedy", 1)
    arrivals.remove("greedy", 100)
    arrivals.add("other", 50)
    arrivals.remove("other", 100)
    assert arrivals.num_bytes == 0


async def test_bodies_in_arrival_are_bounded_together(open_world: OpenWorld) -> None:
    async with open_world(live=True, max_body_bytes=100_000) as world:
        half = b'{"model": "' + b"a" * 90_000

        async def send(stack: contextlib.AsyncExitStack) -> asyncio.StreamReader:
            reader, writer = await stack.enter_async_context(connection(world))
            writer.write(raw_request(half, length=99_000))
            return reader

        async with contextlib.AsyncExitStack() as stack:
            readers = [await send(stack) for _ in range(6)]
            async with asyncio.timeout(10):
                for reader in readers[4:]:
                    assert (await reader.readline()).startswith(b"HTTP/1.1 429")
        assert (await world.ask()).status_code == 200
