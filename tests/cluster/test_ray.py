"""The real server on Ray, started by its one command: replicas come and go with the load, and no request fails."""

import itertools
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from cluster.__main__ import ENVIRONMENT
from tests.support.cluster import free_port, missing

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1800)]

SERVER = "x-tessera-server"
START_TIMEOUT_S = 600
"""On a busy machine."""
SETTINGS = {
    "TESSERA_ENGINE__WARM_STANDBY": "false",
    "TESSERA_ENGINE__KV_CACHE_BYTES": str(128 << 20),
    "TESSERA_MEDIA__NUM_WORKERS": "1",
    "TESSERA_SHUTDOWN_TIMEOUT_S": "10",
}
QUESTION = {
    "model": "tessera-tiny",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 8,
    "temperature": 0,
}


class Cluster:
    """`python -m cluster` in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, log: list[str]) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.log = log


@contextmanager
def cluster(data: Path, *arguments: str) -> Iterator[Cluster]:
    try:
        import ray  # noqa: F401 - in the cluster's environment only
    except ImportError:
        missing("ray is not installed (make test-cluster)")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster", "--port", str(port), "--cpus", "4", *arguments],
        env={**os.environ, **SETTINGS, "TESSERA_DATA_DIR": str(data)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=log.extend, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not any("Tessera listens" in line for line in log):
            assert process.poll() is None and time.monotonic() < deadline_s, "".join(log)
            time.sleep(0.2)
        yield Cluster(process, port, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
        reader.join(10)
        process.stdout.close()


class Load:
    """So many clients that ask all the time, each something of its own, in threads."""

    def __init__(self, url: str, num_clients: int) -> None:
        self._url = url
        self._stopped = threading.Event()
        self.outcome: Counter[str] = Counter()
        self.recent: dict[str, float] = {}
        """When each replica has answered last."""
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(num_clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def replicas(self, within_s: float) -> set[str]:
        """Those that have answered lately."""
        since_s = time.monotonic() - within_s
        return {name for name, at_s in list(self.recent.items()) if at_s >= since_s}

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as client:
            turn = 0
            while not self._stopped.is_set():
                turn += 1
                messages = [{"role": "user", "content": f"Client {number} asks for the {turn}th time."}]
                body = {**QUESTION, "messages": messages, "max_tokens": 24, "ignore_eos": True}
                try:
                    response = client.post("/v1/chat/completions", json=body)
                except httpx.HTTPError as error:
                    self.outcome[type(error).__name__] += 1
                    continue
                self.outcome[str(response.status_code)] += 1
                self.recent[response.headers.get(SERVER, "none")] = time.monotonic()


def until(condition: "object", load: Load, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline_s, (load.outcome, load.recent)
        time.sleep(0.5)


def test_replicas_come_and_go_with_the_load_without_a_failed_request(tmp_path: Path) -> None:
    scaling = ("--min-replicas", "1", "--max-replicas", "3", "--requests-per-replica", "2")
    with cluster(tmp_path, *scaling, "--upscale-delay-s", "1", "--downscale-delay-s", "5", "--num-cpus", "0.5") as ray:
        assert httpx.get(f"{ray.url}/health", timeout=60).status_code == 200  # "listens" means ready
        first = httpx.post(f"{ray.url}/v1/chat/completions", json=QUESTION, timeout=120)
        started_s = time.monotonic()
        load = Load(ray.url, num_clients=8)
        try:
            until(lambda: len(load.replicas(10)) == 3, load, START_TIMEOUT_S)
            print(f"three replicas after {time.monotonic() - started_s:.0f} s")
        finally:
            load.stop()
        light = Load(ray.url, num_clients=1)
        try:
            until(lambda: len(light.replicas(20)) == 1 and light.outcome.total() > 20, light, 240)
            time.sleep(30)  # the others leave
            assert len(light.replicas(20)) == 1
        finally:
            light.stop()
        print(dict(load.outcome), dict(light.outcome))
        assert set(load.outcome) == set(light.outcome) == {"200"}
        again = httpx.post(f"{ray.url}/v1/chat/completions", json=QUESTION, timeout=120).json()
        assert again["choices"][0]["message"] == first.json()["choices"][0]["message"]
        own = descendants(ray.process.pid)
        ray.process.send_signal(signal.SIGTERM)
        assert ray.process.wait(120) == 0
    left = [pid for pid in own if re.search(r"cluster|ray|tessera|model_executor", command(pid))]
    assert not left


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    todo = [pid]
    while todo:
        for task in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            children = {int(child) for child in task.read_text().split()}
            found |= children
            todo += children
    return found


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_streamed_events_do_not_wait_for_one_another(tmp_path: Path) -> None:
    """A client sees the gaps of one connection; what a proxy holds back would come at once, and later."""
    with cluster(tmp_path) as ray, httpx.Client(base_url=ray.url, timeout=120) as client:
        body = {**QUESTION, "stream": True, "max_tokens": 200, "ignore_eos": True}
        arrived = []
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    arrived.append(time.monotonic())
        at_once = sum(later - earlier < 0.0002 for earlier, later in itertools.pairwise(arrived))
        assert len(arrived) > 150 and at_once < len(arrived) / 4


def test_a_killed_machine_is_replaced(tmp_path: Path) -> None:
    try:
        import ray  # noqa: F401 - in the cluster's environment only
    except ImportError:
        missing("ray is not installed (make test-cluster)")
    state = {"haproxy.cfg": "CONFIG_FILE_LOC", "admin.sock": "SOCKET_PATH", "": "SERVER_STATE_BASE"}
    with TemporaryDirectory(prefix="ha-") as folder:
        variables = {f"RAY_SERVE_HAPROXY_{name}": f"{folder}/{file}" for file, name in state.items()}
        variables |= {**ENVIRONMENT, "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.ray_nodes", str(free_port())],
            env={**os.environ, **SETTINGS, **variables, "TESSERA_DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    print(told)
    assert len(told["before"]) == len(told["after"]) == 2
    assert len(set(told["before"]) & set(told["after"])) == 1  # the other machine's replica was left alone
    others = sum(count for status, count in told["outcome"].items() if status != "200")
    assert told["outcome"]["200"] > 100 and others <= told["clients"]  # what that machine was answering
