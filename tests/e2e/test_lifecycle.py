"""Start, load, crash, recovery and stop, seen from the outside."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from tests.support.images import clip_part, made_clip
from tests.support.serving import RunningServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.engine

BODY: dict[str, Any] = {"model": "tessera-test", "messages": [{"role": "user", "content": "Count."}], "max_tokens": 4}


@pytest.fixture(scope="module")
def own_server(checkpoint: Path) -> Iterator[RunningServer]:
    """A server of this module's own, which its tests hurt."""
    settings = {"TESSERA_ENGINE__DTYPE": "float32", "TESSERA_ENGINE__WARM_STANDBY": "true"}
    with RunningServer(checkpoint, settings, ready=False) as running:
        yield running


def ask(server: RunningServer, **extra: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/chat/completions", json=BODY | extra, timeout=120)


def engine_pids(server: RunningServer) -> list[int]:
    return [pid for pid, command in server.processes().items() if "model_executor.engine_process.main" in command]


def test_answers_503_with_the_state_while_the_model_loads(own_server: RunningServer) -> None:
    assert own_server.listening_s < 10  # two seconds on an idle machine
    health = httpx.get(f"{own_server.url}/health")
    assert health.status_code == 503 and "loading" in health.text
    refused = ask(own_server)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}


def test_serves_once_loaded(own_server: RunningServer) -> None:
    own_server.wait_ready()
    assert ask(own_server).status_code == 200


def test_nothing_foreign_stands_among_what_the_start_says(own_server: RunningServer) -> None:
    own_server.wait_ready()
    ours = ("Tessera listens on ", "Still loading, ", "Ready after ", '{"time": ')
    assert not [line for line in own_server.log if not line.startswith(ours)]


@pytest.mark.slow
def test_a_killed_engine_ends_streams_cleanly_and_comes_back(own_server: RunningServer) -> None:
    own_server.wait_ready()
    lines: list[str] = []

    def stream() -> None:
        body = BODY | {"stream": True, "max_tokens": 4000, "ignore_eos": True}
        with httpx.stream("POST", f"{own_server.url}/v1/chat/completions", json=body, timeout=120) as response:
            lines.extend(line for line in response.iter_lines() if line)

    reader = threading.Thread(target=stream)
    reader.start()
    wait_until(lambda: own_server.metrics()["tessera_requests_running"] == 1)
    for pid in engine_pids(own_server):
        os.kill(pid, signal.SIGKILL)
    reader.join(20)
    assert not reader.is_alive()
    assert lines[-1] == "data: [DONE]"
    assert set(json.loads(lines[-2].removeprefix("data: "))["error"]) == {"message", "type", "param", "code"}
    assert ask(own_server).status_code == 503
    own_server.wait_ready()
    assert ask(own_server).status_code == 200


def test_sigterm_ends_every_process_and_leaves_nothing_in_shared_memory(own_server: RunningServer) -> None:
    own_server.wait_ready()
    before = own_server.processes()
    ask(own_server, messages=[{"role": "user", "content": [clip_part(made_clip(30))]}])
    assert own_server.stop() == 0
    wait_until(lambda: not [pid for pid in before if Path(f"/proc/{pid}").exists()])
    assert not [path for path in Path("/dev/shm").glob("tessera*") if f"{own_server.pid}" in path.name]


def test_a_model_that_cannot_be_served_ends_the_process_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    with RunningServer(tmp_path, ready=False) as broken:
        assert broken.wait_end() != 0
    assert "this is a Llama; Tessera serves" in broken.tail()
    assert "Traceback" not in broken.tail()


def test_a_killed_server_leaves_nothing_behind() -> None:
    with TemporaryDirectory(prefix="tessera-") as scratch:
        settings = {"TMPDIR": scratch}
        with RunningServer(None, settings) as server:
            processes = set(server.processes())
            os.kill(server.pid, signal.SIGKILL)
            wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in processes))
        left = set(Path(scratch).iterdir())
        with RunningServer(None, settings):
            assert not left & set(Path(scratch).iterdir())
        assert not list(Path(scratch).iterdir())
