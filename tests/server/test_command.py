"""The command `tessera` as a process: help, refusals, exit codes. Whole servers are in `tests/e2e`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.support.adapters import write_adapter
from tests.support.serving import RunningServer

pytestmark = pytest.mark.slow


def tessera(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_and_version() -> None:
    assert "serve" in tessera("--help").stdout
    assert tessera("--version").stdout.startswith("tessera ")
    shown = tessera("serve", "--help")
    assert shown.returncode == 0 and "--engine.max-model-len" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "variables", "word"),
    [
        ((), {}, "COMMAND"),
        (("fly",), {}, "fly"),
        (("serve", "--prot", "1"), {}, "--prot"),
        (("serve",), {"TESSERA_PROT": "1"}, "TESSERA_PORT"),
        (("serve",), {"TESSERA_ENGINE__DTYPE": "float16"}, "overflows"),
        (("serve",), {"TESSERA_API_KEY": " "}, "TESSERA_API_KEY is set but empty"),
        (("serve",), {"TESSERA_API_KEY": ""}, "TESSERA_API_KEY is set but empty"),
        (("serve",), {"TESSERA_API_KEY": " ,, "}, "is set but holds no key"),
        (("serve", "--api-key", ","), {}, "is set but holds no key"),
        (("serve",), {"TESSERA_API_KEYS_FILE": ""}, "TESSERA_API_KEYS_FILE is set but empty"),
    ],
)
def test_refuses_what_it_does_not_know(arguments: tuple[str, ...], variables: dict[str, str], word: str) -> None:
    done = tessera(*arguments, **variables)
    assert done.returncode == 2 and word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_told_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = tessera("serve", "--port", str(taken.getsockname()[1]), "--host", "127.0.0.1")
    assert done.returncode == 1
    assert "Cannot listen" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("flag", "fact"), [("--api-keys-file", "key file"), ("--tls-certificate", "certificate")])
def test_a_file_that_is_not_there_is_told_in_a_sentence(flag: str, fact: str) -> None:
    done = tessera("serve", "--port", "0", flag, "/nowhere/at/all")
    assert done.returncode == 1
    assert fact in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("model", ["/nowhere/at/all", "nowhere"])
def test_a_model_that_is_not_there_ends_the_process_with_a_sentence(model: str) -> None:
    done = tessera("serve", "--port", "0", "--model", model)
    assert done.returncode == 1
    assert "The model cannot be served" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "rank", "fact"),
    [
        ("odd", 1024, "the adapter 'odd' has the rank 1024"),
        ("base", 4, "an adapter has the same name as the model: 'base'"),
    ],
)
def test_an_adapter_that_cannot_be_served_ends_the_process_with_a_sentence(
    tiny_checkpoint: Path, tmp_path: Path, name: str, rank: int, fact: str
) -> None:
    write_adapter(tmp_path / "adapters" / name, tiny_checkpoint, rank=rank)
    folder = str(tmp_path / "adapters")
    done = tessera(
        *("serve", "--port", "0", "--model", str(tiny_checkpoint), "--served-model-name", "base"),
        TESSERA_ENGINE__LORA_DIR=folder,
    )
    assert done.returncode == 1
    assert f"The model cannot be served: {fact}" in done.stderr and "Traceback" not in done.stderr


def test_listens_before_the_model_is_there_and_stops_on_sigterm(tiny_checkpoint: Path) -> None:
    with RunningServer(tiny_checkpoint, {"TESSERA_API_KEY": "secret"}, ready=False) as server:
        assert server.listening_s < 10  # two seconds on an idle machine
        health = httpx.get(f"{server.url}/health")
        assert (health.status_code, health.json()["status"]) == (503, "loading")
        refused = httpx.get(f"{server.url}/v1/models", headers={"Authorization": "Bearer secret"})
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait_end(30) == 0
    entries = [json.loads(line) for line in server.log if line.startswith("{")]
    paths = [entry["path"] for entry in entries if entry["logger"] == "tessera.access"]
    assert paths == ["/v1/models", "/v1/models"]  # usual answers of /health are not logged
    assert not any("secret" in line for line in server.log)


def test_all_its_processes_end_with_it(tiny_checkpoint: Path) -> None:
    with RunningServer(tiny_checkpoint, ready=False) as server:
        deadline = time.monotonic() + 20
        while not (children := server.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert children
        assert server.stop() == 0
    deadline = time.monotonic() + 20
    while [pid for pid in children if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, server.tail()
        time.sleep(0.05)


def test_a_server_takes_as_many_open_files_as_it_may() -> None:
    program = """
import resource
from server.serve import serve
from server.core.settings import Settings
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
serve(Settings(port=0, model="/nowhere/at/all"))
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most) != (256, 256)
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("host", "key", "warns"),
    [
        ("0.0.0.0", {}, True),
        ("127.0.0.1", {}, False),
        ("localhost", {}, False),
        ("0.0.0.0", {"TESSERA_API_KEY": "k"}, False),
    ],
)
def test_an_open_server_beyond_this_machine_is_a_warning(host: str, key: dict[str, str], warns: bool) -> None:
    done = tessera("serve", "--port", "0", "--host", host, "--model", "/nowhere/at/all", **key)
    assert ("needs no key" in done.stderr) is warns
