"""Thirty-two clients at once that ask all kinds of things for a while: every stream is whole, and memory stays flat.

`SOAK_S` sets for how many seconds; `make soak` runs two minutes.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest

from model_executor.checkpoint.config import BUNDLED_MODEL
from tests.support.error_body import check_error
from tests.support.images import asked, clip_part, made_clip, picture_part, plain, small_photos, text_part
from tests.support.serving import RunningServer

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]

SOAK_S = float(os.environ.get("SOAK_S", "20"))
LONG_S = 600
"""A soak this long has the default caches."""
NUM_CLIENTS = 32
SAMPLE_EVERY_S = 1
GROWTH = 1.03 if SOAK_S >= 60 else 1.1
"""Memory of the last quarter over that of the third one. Caches fill for about a minute; then noise is within 1 %."""
ROLES = {
    "engine": "EngineCore",
    "engine processes": "engine_process.main",
    "media workers": "workers.main",
    "HTTP process": "",
}
"""Kinds of processes, and what their command lines hold."""
KINDS = ("text", "picture", "new picture", "clip", "tools", "form", "two answers", "left early")
SCHEMA = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "green"]}, "sides": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["color", "sides"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "paint", "parameters": SCHEMA, "strict": True}}
FORM = {"type": "json_schema", "json_schema": {"name": "shape", "strict": True, "schema": SCHEMA}}
PICTURE = picture_part(small_photos()[0])
CLIP = clip_part(made_clip(60))


def request(kind: str, choose: random.Random) -> dict[str, Any]:
    """The body of one request."""
    shade = f"#{choose.randrange(1 << 24):06x}"
    kinds: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
        "text": ([text_part(f"What is {shade}?")], {"logprobs": True}),
        "picture": ([PICTURE, text_part("What is it?")], {}),
        "new picture": ([picture_part(plain(84, 84, shade)), text_part("Which color?")], {}),
        "clip": ([CLIP, text_part("What moves?")], {}),
        "tools": ([text_part(f"Paint it {shade}.")], {"tools": [TOOL], "tool_choice": "required"}),
        "form": ([text_part(f"Describe {shade}.")], {"response_format": FORM}),
        "two answers": ([text_part(f"Name {shade}.")], {"n": 2, "temperature": 1}),
        "left early": ([text_part(f"Go on forever about {shade}.")], {"ignore_eos": True, "max_tokens": 2000}),
    }
    parts, extras = kinds[kind]
    settings = {"model": BUNDLED_MODEL, "max_tokens": 60, "stream": True, "stream_options": {"include_usage": True}}
    return {**settings, "messages": asked(*parts), **extras}


@dataclass
class Choice:
    """One choice, put together."""

    text: str = ""
    arguments: str = ""
    finish_reason: str | None = None


async def chunks(response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    """The events of a stream, each of which must be a chunk; the last one must be its end."""
    done = False
    async for line in response.aiter_lines():
        if not line or line.startswith(":"):
            continue
        assert not done and line.startswith("data: "), line
        done = line == "data: [DONE]"
        if not done:
            chunk = json.loads(line.removeprefix("data: "))
            assert chunk.get("object") == "chat.completion.chunk", line
            yield chunk
    assert done, "the stream broke off"


async def require_whole(response: httpx.Response, kind: str) -> None:
    """Read a stream to its end and check it against what was asked."""
    choices = [Choice() for _ in range(2 if kind == "two answers" else 1)]
    usage = None
    async for chunk in chunks(response):
        assert usage is None, "something follows the usage"
        usage = chunk["usage"]
        for part in chunk["choices"]:
            choice = choices[part["index"]]
            assert choice.finish_reason is None, "something follows the end of a choice"
            choice.finish_reason = part["finish_reason"]
            choice.text += part["delta"].get("content") or ""
            for call in part["delta"].get("tool_calls", ()):
                choice.arguments += call["function"].get("arguments", "")
    assert usage is not None and usage["completion_tokens"] > 0
    assert all(choice.finish_reason in ("stop", "length", "tool_calls") for choice in choices)
    for choice in choices:
        if kind == "tools" and choice.finish_reason == "tool_calls":
            jsonschema.validate(json.loads(choice.arguments), SCHEMA)
        if kind == "form" and choice.finish_reason == "stop":
            jsonschema.validate(json.loads(choice.text), SCHEMA)


@dataclass
class Soak:
    """What the clients and the watcher saw."""

    server: RunningServer
    ended: Counter[str] = field(default_factory=Counter)
    memory_by_role: list[dict[str, int]] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)

    async def run(self) -> None:
        """Ask and watch until the time is over and all requests have ended."""
        self.until = time.monotonic() + SOAK_S
        limits = httpx.Limits(max_connections=NUM_CLIENTS)
        async with httpx.AsyncClient(base_url=self.server.url, timeout=300, limits=limits) as client:
            watcher = asyncio.create_task(self._watch())
            async with asyncio.TaskGroup() as group:
                for number in range(NUM_CLIENTS):
                    group.create_task(self._ask_on(client, random.Random(number), number))
            watcher.cancel()

    async def _ask_on(self, client: httpx.AsyncClient, choose: random.Random, number: int) -> None:
        while time.monotonic() < self.until:
            kind = KINDS[number % len(KINDS)]
            number += 1
            body = request(kind, choose)
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    await response.aread()
                    await self._require_refusal(response)
                elif kind == "left early":
                    await self._leave(response, choose.randint(1, 8))
                else:
                    await require_whole(response, kind)
                    self.ended[kind] += 1

    async def _require_refusal(self, response: httpx.Response) -> None:
        assert response.status_code in (429, 503), response.text
        check_error(response, response.status_code, code=response.json()["error"]["code"])
        self.ended[str(response.status_code)] += 1
        await asyncio.sleep(int(response.headers["retry-after"]))

    async def _leave(self, response: httpx.Response, num_chunks: int) -> None:
        seen = 0
        async with aclosing(chunks(response)) as events:
            async for _ in events:
                seen += 1
                if seen == num_chunks:
                    break
        self.ended["left early"] += 1

    async def _watch(self) -> None:
        while True:
            sample = await asyncio.to_thread(memory_by_role, self.server)
            self.memory_by_role.append(sample)
            self.memory_bytes.append(sum(sample.values()))
            await asyncio.sleep(SAMPLE_EVERY_S)

    def slopes(self) -> dict[str, float]:
        """MB per hour by which each kind of process grew over the second half of the time: a line of least squares."""
        half = self.memory_by_role[len(self.memory_by_role) // 2 :]
        hours = np.arange(len(half)) * SAMPLE_EVERY_S / 3600
        return {role: round(float(np.polyfit(hours, [s[role] / 1e6 for s in half], 1)[0]), 1) for role in ROLES}


def memory_by_role(server: RunningServer) -> dict[str, int]:
    """Bytes of each kind of process of the server, shared pages counted once."""
    found = dict.fromkeys(ROLES, 0)
    for pid, command in {server.pid: "", **server.processes()}.items():
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # it ended in between
            continue
        role = next(role for role, part in ROLES.items() if part in command)
        found[role] += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return found


@pytest.fixture
def small_server() -> Iterator[RunningServer]:
    """A server whose caches are full soon, so that their filling is not taken for a leak; a long soak fills any."""
    small = {
        "TESSERA_ENGINE__MAX_MODEL_LEN": "4096",
        "TESSERA_ENGINE__KV_CACHE_BYTES": str(32 << 20),
        "TESSERA_MEDIA__MAX_CACHE_BYTES": str(1 << 20),
    }
    with RunningServer(None, small if SOAK_S < LONG_S else {}) as running:
        yield running


async def test_mixed_streams_of_many_clients_stay_whole_and_memory_stays_flat(small_server: RunningServer) -> None:
    soak = Soak(small_server)
    await soak.run()
    every = max(1, len(soak.memory_bytes) // 60)
    print(dict(soak.ended), "MB:", [size >> 20 for size in soak.memory_bytes[::every]])
    print("MB per hour over the second half:", soak.slopes())
    assert all(soak.ended[kind] > 0 for kind in KINDS)
    quarter = len(soak.memory_bytes) // 4
    third, last = soak.memory_bytes[2 * quarter : 3 * quarter], soak.memory_bytes[3 * quarter :]
    assert sum(last) / len(last) < GROWTH * sum(third) / len(third)
    deadline = time.monotonic() + 30
    while (samples := small_server.metrics())["tessera_requests_running"] + samples["tessera_requests_waiting"]:
        assert time.monotonic() < deadline, "requests run on without a client"
        await asyncio.sleep(0.1)
    assert "request failed" not in "".join(small_server.log)
