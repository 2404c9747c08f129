"""Two servers behind a real HAProxy with the project's configuration: fidelity, stickiness, losses, restarts."""

import asyncio
import itertools
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.cluster import Part, fake_server, haproxy, redis_server
from tests.support.fakes import MODEL
from tests.support.images import png
from tests.support.keys import entry, write

pytestmark = pytest.mark.cluster

SERVER = "x-tessera-server"
CHANGING = {"date", "x-request-id", "openai-processing-ms", SERVER, "connection"}
"""Headers that differ from one answer to the next."""
LIMIT = 100


@dataclass
class Site:
    """Two servers that share their state, and what is before them."""

    one: Part
    two: Part
    proxy: Part
    redis: Part


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "redis").mkdir()
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(tmp_path / "redis"))
        shared = {
            "STATE_URL": f"redis://127.0.0.1:{redis.port}",
            "FILES__STORE": str(tmp_path / "store"),
            "API_KEYS_FILE": str(keys(tmp_path)),
        }
        one, two = (stack.enter_context(fake_server(name, tmp_path / name, **shared)) for name in ("one", "two"))
        proxy = stack.enter_context(haproxy([one, two]))
        for url in (one.url, two.url, proxy.url):
            until_healthy(url)
        yield Site(one, two, proxy, redis)


def keys(folder: Path) -> Path:
    file = folder / "keys.toml"
    write(file, entry("free", "free"), entry("limited", "limited", requests_per_minute=LIMIT))
    return file


def until_healthy(url: str) -> None:
    deadline_s = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline_s, url
        time.sleep(0.05)


def client(part: Part, key: str = "free") -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=part.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def question(text: str = "Hi.", num_tokens: int = 2, **fields: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": num_tokens,
        **fields,
    }


async def test_every_route_answers_as_without_it(site: Site) -> None:
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/health", {}),
        ("GET", "/v1/models", {}),
        ("GET", f"/v1/models/{MODEL}", {}),
        ("GET", "/openapi.json", {}),
        ("GET", "/", {}),
        ("HEAD", "/", {}),
        ("GET", "/nowhere", {}),
        ("GET", "/v1/files", {}),
        ("GET", "/v1/files/file-none", {}),
        ("POST", "/v1/chat/completions", {"json": question()}),
        ("POST", "/v1/chat/completions", {"json": question(max_tokens=-1)}),
        ("POST", "/v1/chat/completions", {"content": b"{no json"}),
        ("POST", "/v1/chat/completions", {"json": question("x" * 3_000_000)}),
        ("POST", "/v1/chat/completions/preview", {"json": question()}),
        ("POST", "/v1/completions", {"json": {"model": MODEL, "prompt": "Hi", "max_tokens": 2}}),
        ("POST", "/v1/responses", {"json": {"model": MODEL, "input": "Hi", "max_output_tokens": 16}}),
        ("POST", "/tokenize", {"json": {"model": MODEL, "prompt": "Hi"}}),
        ("POST", "/detokenize", {"json": {"model": MODEL, "tokens": [72]}}),
        ("DELETE", "/v1/files/file-none", {}),
        ("POST", "/v1/files", {"files": {"file": ("a.txt", b"no picture")}, "data": {"purpose": "vision"}}),
    ]
    async with client(site.one) as direct, client(site.proxy) as proxied:
        for method, path, content in requests:
            expected, got = [await each.request(method, path, **content) for each in (direct, proxied)]
            assert got.status_code == expected.status_code, path
            assert headers(got) == headers(expected), path
            assert len(got.content) == len(expected.content), path
            if "completions" not in path and "responses" not in path:  # these have ids of their own
                assert got.content == expected.content, path


def headers(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in CHANGING}


async def test_streamed_events_do_not_wait_for_one_another(site: Site) -> None:
    gaps: dict[str, list[float]] = {}
    for name, part in (("direct", site.one), ("proxied", site.proxy)):
        async with client(part) as asking:
            async with asking.stream("POST", "/v1/chat/completions", json=question(num_tokens=100, stream=True)) as got:
                arrived = [time.monotonic() async for line in got.aiter_lines() if line.startswith("data: {")]
        gaps[name] = [later - earlier for earlier, later in itertools.pairwise(arrived)][1:-1]
    assert abs(statistics.median(gaps["proxied"]) - statistics.median(gaps["direct"])) < 0.005


async def test_a_session_or_the_same_beginning_meets_one_server(site: Site) -> None:
    async with client(site.proxy) as asking:

        async def served(body: dict[str, Any], **headers: str) -> str:
            return str((await asking.post("/v1/chat/completions", json=body, headers=headers)).headers[SERVER])

        for number in range(6):
            by_session = {await served(question(f"{n}"), **{"x-session-id": f"s{number}"}) for n in range(4)}
            picture = f"data:image/png;base64,{number}" + "A" * 6000
            beginning = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": picture}}]}]
            turns = [
                {"model": MODEL, "messages": [*beginning, {"role": "user", "content": f"{n}"}], "max_tokens": 1}
                for n in range(4)
            ]
            assert len(by_session) == 1
            assert len({await served(dict(sorted(turn.items(), reverse=True))) for turn in turns}) == 1
        assert {await served(question(f"{n}")) for n in range(40)} == {"one", "two"}


async def test_a_file_uploaded_to_one_server_is_read_by_the_other(site: Site) -> None:
    data = png(200_000)
    async with client(site.one) as one, client(site.two) as two:
        sent = await one.post("/v1/files", files={"file": ("a.png", data)}, data={"purpose": "vision"})
        id_ = sent.raise_for_status().json()["id"]
        assert (await two.get(f"/v1/files/{id_}/content")).content == data
        part = {"type": "file", "file": {"file_id": id_}}
        body = {"model": MODEL, "messages": [{"role": "user", "content": [part]}], "max_tokens": 1}
        assert (await two.post("/v1/chat/completions", json=body)).status_code == 200
        assert (await one.delete(f"/v1/files/{id_}")).status_code == 200
        gone = await two.post("/v1/chat/completions", json=body)
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "file_not_found")


async def test_the_limits_of_a_key_hold_across_both(site: Site) -> None:
    statuses: Counter[int] = Counter()
    started_s = time.monotonic()

    async def ask(number: int) -> None:
        async with client(site.proxy, "limited") as asking:
            for each in range(75):
                response = await asking.post("/v1/chat/completions", json=question(f"{number} {each}", num_tokens=1))
                statuses[response.status_code] += 1

    await asyncio.gather(*(ask(number) for number in range(8)))
    refilled = int((time.monotonic() - started_s) * LIMIT / 60)
    assert statuses.total() == 600 and set(statuses) == {200, 429}
    assert LIMIT <= statuses[200] <= LIMIT + refilled


async def ask_until(site: Site, stopped: asyncio.Event, outcome: Counter[str], size: int = 300_000) -> None:
    """One client that asks until it is told to stop, each time something of its own."""
    number = 0
    async with client(site.proxy) as asking:
        while not stopped.is_set():
            number += 1
            body = question(f"{id(asking)} {number}", num_tokens=10, padding="x" * size)  # which is left out
            try:
                response = await asking.post("/v1/chat/completions", json=body)
                outcome[str(response.status_code)] += 1
            except httpx.HTTPError as error:
                outcome[type(error).__name__] += 1


async def test_a_killed_server_costs_no_request_that_has_sent_nothing(site: Site) -> None:
    stopped, outcome = asyncio.Event(), Counter[str]()
    clients = [asyncio.create_task(ask_until(site, stopped, outcome)) for _ in range(8)]
    async with client(site.proxy) as asking:
        lines: dict[str, list[str]] = {}

        async def stream(session: str) -> None:
            body = question(num_tokens=300, stream=True)
            async with asking.stream(
                "POST", "/v1/chat/completions", json=body, headers={"x-session-id": session}
            ) as got:
                found = lines[str(got.headers[SERVER]) + session] = []
                try:
                    async for line in got.aiter_lines():
                        found.append(line)
                except httpx.HTTPError:
                    return

        streams = [asyncio.create_task(stream(f"session {number}")) for number in range(8)]
        await asyncio.sleep(3)
        site.one.kill()
        while outcome.total() < 300:
            await asyncio.sleep(0.1)
        stopped.set()
        await asyncio.gather(*clients, *streams)
    print(dict(outcome))
    assert set(outcome) == {"200"}
    whole = {name: "data: [DONE]" in found for name, found in lines.items()}
    assert set(whole.values()) == {False, True}
    assert all(is_whole == name.startswith("two") for name, is_whole in whole.items())


async def test_servers_are_restarted_one_after_another_without_a_refused_request(site: Site) -> None:
    stopped, outcome = asyncio.Event(), Counter[str]()
    clients = [asyncio.create_task(ask_until(site, stopped, outcome, size=100)) for _ in range(8)]
    await asyncio.sleep(1)
    for server in (site.one, site.two):
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(until_healthy, server.url)
        await asyncio.sleep(3)  # until HAProxy has seen it
    stopped.set()
    await asyncio.gather(*clients)
    print(dict(outcome))
    assert set(outcome) == {"200"} and outcome.total() > 50


async def test_while_the_state_is_away_what_needs_it_is_503_and_the_rest_goes_on(site: Site) -> None:
    async with client(site.proxy) as free, client(site.proxy, "limited") as limited:
        id_ = (
            (await free.post("/v1/files", files={"file": ("a.png", png())}, data={"purpose": "vision"}))
            .raise_for_status()
            .json()["id"]
        )
        site.redis.kill()
        assert (await free.post("/v1/chat/completions", json=question())).status_code == 200
        for response in (
            await limited.post("/v1/chat/completions", json=question()),
            await free.get("/v1/files"),
            await free.get(f"/v1/files/{id_}"),
        ):
            assert (response.status_code, response.json()["error"]["code"]) == (503, "state_unavailable")
            assert int(response.headers["retry-after"]) >= 1
        site.redis.start()
        assert (await limited.post("/v1/chat/completions", json=question())).status_code == 200
        assert (await free.get(f"/v1/files/{id_}/content")).content == png()
