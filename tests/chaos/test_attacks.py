"""What an attacker costs others: latencies of another key's requests, and of `/health`, with and without attacks.

`make chaos` prints the tables of `docs/reliability.md`. The attackers run on the machine that is attacked, so part of
what is measured is their own work.
"""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

import httpx
import numpy as np
import pytest

from model_executor.checkpoint.config import BUNDLED_MODEL
from tests.support.images import asked, data_url, text_part
from tests.support.serving import RunningServer

pytestmark = [pytest.mark.engine, pytest.mark.chaos, pytest.mark.timeout(1800)]

ATTACKER, OTHER = "attackers-key-0123456789", "others-key-0123456789"
CHAT = "/v1/chat/completions"
NUM_MEASURED = 60


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with RunningServer(None, {"TESSERA_API_KEY": f"{ATTACKER},{OTHER}"}) as running:
        yield running


def first_token_ms(url: str) -> list[float]:
    """Of requests of the other key, one after the other; every second one has a form of its own."""
    body = {"model": BUNDLED_MODEL, "stream": True, "max_tokens": 4, "temperature": 0}
    times = []
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {OTHER}"}, timeout=120) as client:
        for number in range(NUM_MEASURED):
            begun = time.perf_counter()
            asking = {**body, "messages": asked(text_part(f"What is {number}?"))}
            if number % 2:
                asking["structured_outputs"] = {"choice": [f"color {time.monotonic()}", "none"]}
            with client.stream("POST", CHAT, json=asking) as response:
                assert response.status_code == 200
                next(line for line in response.iter_lines() if '"content":"' in line and '"content":""' not in line)
            times.append((time.perf_counter() - begun) * 1000)
    return times


def health_ms(url: str) -> list[float]:
    times = []
    with httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(300):
            begun = time.perf_counter()
            assert client.get("/health").status_code == 200
            times.append((time.perf_counter() - begun) * 1000)
            time.sleep(0.01)
    return times


def send(url: str, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {ATTACKER}", "Content-Type": "application/json"}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        status = client.post(CHAT, content=body).status_code
        assert status < 500 or status in (503, 504), status


def chat(**fields: object) -> bytes:
    return json.dumps({"model": BUNDLED_MODEL, "max_tokens": 4, **fields}).encode()


MANY_MESSAGES = chat(messages=[]).replace(
    b'"messages": []', b'"messages": [' + b",".join([b'{"role":"user"}'] * 10**6) + b"]"
)
"""A million messages, each too short to be one."""


def long_expression(number: int) -> bytes:
    """An expression, another one each time, that takes all the time a grammar is given."""
    return chat(messages=asked(text_part("Hi.")), structured_outputs={"regex": r"(.|\n)*" * (100 + number)})


def slow_names(number: int) -> bytes:
    parts = [{"type": "image_url", "image_url": {"url": f"http://host-{number}-{i}.example/a.png"}} for i in range(8)]
    return chat(messages=asked(*parts))


def long_gif(number: int) -> bytes:
    """20 000 frames of one pixel on a canvas of 10 000 x 10 000 px."""
    frame = b"\x2c" + struct.pack("<4H", number % 9999, 0, 1, 1) + b"\x00\x02\x02\x44\x01\x00"
    gif = b"GIF89a" + struct.pack("<2H", 10_000, 10_000) + b"\xf0\x00\x00" + bytes([0, 0, 0, 255, 255, 255])
    url = data_url(gif + frame * 20_000 + b"\x3b", "image/gif")
    return chat(messages=asked({"type": "video_url", "video_url": {"url": url}}, text_part("What?")))


@contextmanager
def repeated(url: str, body_of: Callable[[int], bytes], num_threads: int) -> Iterator[None]:
    """Threads that send bodies one after the other, until the end."""
    ended = threading.Event()

    def run(first: int) -> None:
        number = first
        while not ended.is_set():
            try:
                send(url, body_of(number))
            except httpx.TransportError:
                time.sleep(0.05)
            number += num_threads

    threads = [threading.Thread(target=run, args=(first,)) for first in range(num_threads)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@contextmanager
def bodies_held_open(url: str, number: int, size: int) -> Iterator[None]:
    """Connections whose bodies lack their last byte."""
    host, port = url.removeprefix("http://").split(":")
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ATTACKER}\r\nContent-Length: {size + 1}\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(number):
            peer = stack.enter_context(socket.create_connection((host, int(port))))
            peer.settimeout(2)
            with suppress(OSError):  # refused, or not read any further
                peer.sendall(head.encode() + b" " * size)
        yield


@contextmanager
def silent_connections(url: str, number: int) -> Iterator[None]:
    host, port = url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(socket.create_connection((host, int(port))))
        yield


@contextmanager
def endless_heads(url: str, num_threads: int) -> Iterator[None]:
    """Heads of 48 MB, again and again."""
    host, port = url.removeprefix("http://").split(":")
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            with socket.create_connection((host, int(port))) as peer:
                try:
                    peer.sendall(b"GET / HTTP/1.1\r\n")
                    for _ in range(48):
                        peer.sendall(b"X: a\r\n" * 170_000)
                except OSError:
                    time.sleep(0.02)

    threads = [threading.Thread(target=run) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def shown(name: str, times: list[float]) -> float:
    middle, high, highest = np.percentile(times, [50, 95, 99])
    print(f"| {name} | {middle:.0f} ms | {high:.0f} ms | {highest:.0f} ms |")
    return float(high)


def test_another_keys_requests_under_attack(server: RunningServer) -> None:
    first_token_ms(server.url)
    print("\n| first token of another key | p50 | p95 | p99 |\n| --- | --- | --- | --- |")
    quiet = shown("nobody else", first_token_ms(server.url))
    attacks: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "a million messages in a body": lambda: repeated(server.url, lambda _: MANY_MESSAGES, 1),
        "expressions that take long": lambda: repeated(server.url, long_expression, 12),
        "names that no server knows": lambda: repeated(server.url, slow_names, 4),
        "GIFs of 20 000 frames": lambda: repeated(server.url, long_gif, 2),
        "bodies held open": lambda: bodies_held_open(server.url, 10, 60 << 20),
    }
    for name, attack in attacks.items():
        with attack():
            shown(name, first_token_ms(server.url))
    with ExitStack() as stack:
        for attack in attacks.values():
            stack.enter_context(attack())
        together = shown("all of these at once", first_token_ms(server.url))
    print(f"p95 under all attacks over p95 without: {together / quiet:.1f}")
    assert shown("nobody else, afterwards", first_token_ms(server.url)) < 3 * quiet


def test_health_while_strangers_attack(server: RunningServer) -> None:
    print("\n| /health | p50 | p95 | p99 |\n| --- | --- | --- | --- |")
    shown("nobody else", health_ms(server.url))
    with silent_connections(server.url, 1100):
        shown("1100 silent connections", health_ms(server.url))
    with endless_heads(server.url, 2):
        shown("heads of 48 MB", health_ms(server.url))
