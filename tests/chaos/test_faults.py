"""Processes killed and frozen, files taken away, under load: what clients see, and how soon all is well again.

`make chaos` prints the table of `docs/reliability.md`. Fails on a hang, a wrong answer, a status that is not 200 or
503, something left behind, and a recovery that takes too long. `CHAOS_SLACK` multiplies the times allowed, for busy
machines.
"""

import json
import os
import resource
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_executor.checkpoint.config import BUNDLED_MODEL
from tests.support.images import asked, clip_part, made_clip, picture_part, plain, png, small_photos, text_part
from tests.support.serving import RunningServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.chaos, pytest.mark.timeout(1800)]

SLACK = float(os.environ.get("CHAOS_SLACK", "1"))
HANG_S = 60 * SLACK
"""A request that takes longer hangs."""
KINDS = ("text", "streamed text", "image", "new image", "video", "choice")
IMAGE = picture_part(small_photos()[0])
VIDEO = clip_part(made_clip(30))
_CHOICE = {"structured_outputs": {"choice": ["yes", "no"]}}


def body(kind: str, number: int) -> dict[str, Any]:
    """A request with one right answer, whatever `number` is."""
    shade = f"#{number % (1 << 24):06x}"
    parts: dict[str, list[dict[str, Any]]] = {
        "text": [text_part("What is red?")],
        "streamed text": [text_part("What is blue?")],
        "image": [IMAGE, text_part("What is it?")],
        "new image": [picture_part(plain(56, 56, shade)), text_part("Is this one color?")],
        "video": [VIDEO, text_part("What moves?")],
        "choice": [text_part("Is it good?")],
    }
    extras: dict[str, Any] = _CHOICE if kind == "choice" else {}
    stream = kind == "streamed text"
    settings = {"model": BUNDLED_MODEL, "max_tokens": 24, "temperature": 0, "stream": stream, **extras}
    return {**settings, "messages": asked(*parts[kind])}


def ask(client: httpx.Client, kind: str, number: int) -> str:
    """`ok TEXT`, or what went wrong in a few words."""
    try:
        response = client.post("/v1/chat/completions", json=body(kind, number))
    except httpx.TimeoutException:
        return "hang"
    except httpx.HTTPError as error:
        return f"connection: {type(error).__name__}"
    if response.status_code != 200:
        return f"status {response.status_code}"
    if kind != "streamed text":
        return f"ok {response.json()['choices'][0]['message']['content']}"
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        return "cut"
    chunks = [json.loads(event) for event in events[:-1]]
    if any("error" in chunk for chunk in chunks):
        return "error in a stream"
    return "ok " + "".join(part["delta"].get("content") or "" for chunk in chunks for part in chunk["choices"])


@dataclass
class Load:
    """Eight clients that ask without a pause, and what they saw since the last look."""

    url: str
    references: dict[str, str] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    num_processes: int = 0
    """Of the server when all was well."""
    recovered: dict[str, float] = field(default_factory=dict)
    """When each kind was first answered rightly since the last look."""
    stopping: bool = False

    def __enter__(self) -> "Load":
        """Learn the right answers, then begin."""
        with self._client() as client:
            for kind in set(KINDS) - {"new image"}:
                answer = ask(client, kind, 0)
                assert answer.startswith("ok "), (kind, answer)
                self.references[kind] = answer
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(8)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, once the last requests have."""
        self.stopping = True
        for thread in self._threads:
            thread.join()

    def look(self) -> Counter[str]:
        """What was seen since the last look."""
        seen, self.seen, self.recovered = self.seen, Counter(), {}
        return seen

    def until_all_is_well(self, since_s: float, within_s: float) -> float:
        """Seconds from `since_s` until every kind of request was answered again."""
        self.recovered = {}
        wait_until(lambda: len(self.recovered) == len(KINDS) or self.seen["hang"], within_s + 5)
        return max(self.recovered.values(), default=since_s) - since_s

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=HANG_S)

    def _run(self, number: int) -> None:
        with self._client() as client:
            while not self.stopping:
                number += 8
                kind = KINDS[number // 8 % len(KINDS)]
                outcome = ask(client, kind, number)
                if outcome.startswith("ok "):
                    is_right = outcome == self.references.get(kind, outcome)
                    outcome = "ok" if is_right else f"wrong answer ({kind})"
                    if is_right:
                        self.recovered.setdefault(kind, time.monotonic())
                self.seen[outcome] += 1
                if outcome != "ok":
                    time.sleep(0.05)


@dataclass
class Victims:
    """The processes of a server by what they do."""

    server: RunningServer

    def engine_processes(self) -> list[int]:
        """That in service, and then the standby."""
        found = [pid for pid in self._children(self.server.pid) if "engine_process.main" in self._command(pid)]
        return sorted(found, key=lambda pid: not self._children(pid))

    def engine_core(self) -> int:
        return next(p for p in self._children(self.engine_processes()[0]) if "EngineCore" in self._command(p))

    def keeper(self) -> int:
        return next(p for p in self._children(self.engine_processes()[0]) if "EngineCore" not in self._command(p))

    def workers(self) -> list[int]:
        return [pid for pid in self._children(self.server.pid) if "workers.main" in self._command(pid)]

    @staticmethod
    def _children(pid: int) -> list[int]:
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]

    @staticmethod
    def _command(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except FileNotFoundError:
            return ""


def kill(find: Callable[[Victims], int]) -> Callable[[Victims, ExitStack], None]:
    return lambda victims, _: os.kill(find(victims), signal.SIGKILL)


def freeze(find: Callable[[Victims], int], for_s: float | None = None) -> Callable[[Victims, ExitStack], None]:
    """Stop a process, for a while or for good."""

    def act(victims: Victims, _: ExitStack) -> None:
        victim = find(victims)
        os.kill(victim, signal.SIGSTOP)
        if for_s is not None:
            time.sleep(for_s)
            os.kill(victim, signal.SIGCONT)

    return act


def lose_without_open_files(victims: Victims, undo: ExitStack) -> None:
    """Kill the engine process and its standby while the server may open no file, and allow it again later."""
    before = resource.prlimit(victims.server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(victims.server.pid, resource.RLIMIT_NOFILE, (8, before[1]))
    for pid in victims.engine_processes():
        os.kill(pid, signal.SIGKILL)
    time.sleep(3)
    resource.prlimit(victims.server.pid, resource.RLIMIT_NOFILE, before)


def remove_data(victims: Victims, _: ExitStack) -> None:
    """Take the directory of uploaded files away between two uploads."""
    for is_last in (False, True):
        files = {"file": ("a.png", png(), "image/png")}
        response = httpx.post(f"{victims.server.url}/v1/files", files=files, data={"purpose": "vision"}, timeout=HANG_S)
        assert response.status_code == 200, response.text
        if not is_last:
            shutil.rmtree(Path(victims.server.data_dir) / "files")


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong."""

    name: str
    act: Callable[[Victims, ExitStack], None]
    within_s: float
    """By when all kinds of requests must be answered again."""
    may_fail: bool = True
    """Whether requests may be answered 503, or their streams end with an error, meanwhile."""


FAULTS = [
    Fault("SIGKILL media worker", kill(lambda v: v.workers()[0]), 15, may_fail=False),
    Fault("SIGKILL grammar process", kill(lambda v: v.keeper()), 15, may_fail=False),
    Fault("SIGKILL standby", kill(lambda v: v.engine_processes()[-1]), 15, may_fail=False),
    Fault("SIGKILL engine core, standby", kill(lambda v: v.engine_core()), 15),
    Fault("SIGKILL engine process, standby", kill(lambda v: v.engine_processes()[0]), 15),
    Fault("SIGSTOP engine core 10 s", freeze(lambda v: v.engine_core(), 10), 25, may_fail=False),
    Fault("SIGSTOP media worker for good", freeze(lambda v: v.workers()[0]), 25, may_fail=False),
    Fault("SIGSTOP engine core for good", freeze(lambda v: v.engine_core()), 60),
    Fault("SIGSTOP engine process for good", freeze(lambda v: v.engine_processes()[0]), 60),
    Fault("no open files, engine lost", lose_without_open_files, 45),
    Fault("data directory removed", remove_data, 15, may_fail=False),
]


@pytest.fixture(scope="module")
def load() -> Iterator[tuple[RunningServer, Load]]:
    """A server with a standby, under load."""
    with RunningServer(None, {"TESSERA_ENGINE__WARM_STANDBY": "true"}) as server, Load(server.url) as load:
        yield server, load


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_all_is_well_again_soon(load: tuple[RunningServer, Load], fault: Fault) -> None:
    server, clients = load
    victims = Victims(server)
    wait_until(lambda: len(victims.engine_processes()) == 2 and server.standby_is_ready(), 120 * SLACK)
    clients.num_processes = clients.num_processes or len(server.processes())
    clients.look()
    with ExitStack() as undo:
        since_s = time.monotonic()
        fault.act(victims, undo)
        took_s = clients.until_all_is_well(since_s, fault.within_s * SLACK)
    # What tries a grammar, or works for a client that would wait for another one's video, comes and goes.
    wait_until(lambda: len(server.processes()) <= clients.num_processes + 2, 60 * SLACK)
    seen = clients.look()
    print(f"\n| {fault.name} | {took_s:.1f} s | {', '.join(f'{n} {what}' for what, n in seen.most_common())} |")
    allowed = {"ok", "status 503", "error in a stream"} if fault.may_fail else {"ok"}
    assert set(seen) <= allowed, seen
    assert took_s <= fault.within_s * SLACK
