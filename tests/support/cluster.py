"""The real parts of a cluster, each on a free port of this machine: redis-server, HAProxy, an S3 server."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.fakes import MODEL

START_TIMEOUT_S = 60
HAPROXY_CONFIG = Path(__file__).parents[2] / "docker" / "haproxy.cfg"


def program(name: str) -> str:
    """Path of a program; the test is skipped without it, or fails with REQUIRE_CLUSTER=1."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed")
    assert path is not None
    return path


def missing(what: str) -> None:
    """Skip the test for want of something, or fail with REQUIRE_CLUSTER=1."""
    if os.environ.get("REQUIRE_CLUSTER") == "1":
        pytest.fail(f"REQUIRE_CLUSTER=1, and {what}")
    pytest.skip(what)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class Part:
    """A program that listens on a port; it can be killed and started again there.

    Args:
        command: program and arguments.
        port: that it listens on.
        environment: further variables.
    """

    def __init__(self, command: list[str], port: int, environment: Mapping[str, str] | None = None) -> None:
        self.port = port
        self._command = command
        self._environment = {**os.environ, **(environment or {})}
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            assert self._process.poll() is None, f"{self._command[0]} has ended with {self._process.returncode}"
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline_s, f"{self._command[0]} does not listen"
                time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """Kill it, as a power failure would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._process.terminate()
        self._process.wait(START_TIMEOUT_S)


@contextmanager
def redis_server(folder: Path, *arguments: str) -> Iterator[Part]:
    """A Redis that keeps what it has acknowledged."""
    port = free_port()
    command = [program("redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    part = Part([*command, "--appendonly", "yes", "--appendfsync", "always", "--save", "", *arguments], port)
    try:
        yield part
    finally:
        part.kill()


@contextmanager
def s3_server() -> Iterator[Part]:
    """An S3 server without any bucket."""
    try:
        import moto  # type: ignore[import-not-found,import-untyped,unused-ignore]  # in the cluster's environment only
    except ImportError:
        missing("moto is not installed (make test-cluster)")
    assert moto
    port = free_port()
    part = Part([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port)
    try:
        yield part
    finally:
        part.kill()


@contextmanager
def haproxy(servers: Sequence[Part]) -> Iterator[Part]:
    """The project's HAProxy configuration before two servers."""
    port = free_port()
    one, two = (f"127.0.0.1:{server.port}" for server in servers)
    environment = {"LISTEN": f"127.0.0.1:{port}", "SERVER_ONE": one, "SERVER_TWO": two}
    part = Part([program("haproxy"), "-db", "-f", str(HAPROXY_CONFIG)], port, environment)
    try:
        yield part
    finally:
        part.kill()


@contextmanager
def fake_server(name: str, data: Path, **settings: str) -> Iterator[Part]:
    """A server over a scripted engine; settings by the names of their variables, without `TESSERA_`."""
    port = free_port()
    variables = {"PORT": str(port), "SERVED_MODEL_NAME": MODEL, "SERVER_NAME": name, "DATA_DIR": str(data), **settings}
    environment = {f"TESSERA_{variable}": value for variable, value in variables.items()}
    part = Part([sys.executable, "-m", "tests.support.fake_server"], port, environment)
    try:
        yield part
    finally:
        part.kill()
