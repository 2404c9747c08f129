"""A whole server as a person runs it: `tessera serve` in a process of its own, watched from the outside."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import httpx

START_TIMEOUT_S = 240
STOP_TIMEOUT_S = 60


class RunningServer:
    """Starts on entry, stops by its pid on exit.

    Args:
        model: checkpoint folder, served as `tessera-test`; None for what the server serves by itself.
        settings: further `TESSERA_*` variables.
        ready: wait until the model answers, not only until the port is open.
    """

    def __init__(self, model: Path | None, settings: Mapping[str, str] | None = None, *, ready: bool = True) -> None:
        self._ready = ready
        self._data = TemporaryDirectory(prefix="tessera-data-")  # one server at a time may use such a folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TESSERA_")},
            **({} if model is None else {"TESSERA_MODEL": str(model), "TESSERA_SERVED_MODEL_NAME": "tessera-test"}),
            "TESSERA_PORT": "0",
            "TESSERA_HOST": "127.0.0.1",
            "TESSERA_DATA_DIR": self._data.name,
            "TESSERA_ENGINE__KV_CACHE_BYTES": str(256 << 20),  # this and the next: several servers run at a time
            "TESSERA_ENGINE__WARM_STANDBY": "false",
            **(settings or {}),
        }
        self.log: list[str] = []
        self.listening_s = float("nan")
        """Seconds from start to an open port."""
        self.ready_s = float("nan")
        """Seconds from start to a ready model."""

    def __enter__(self) -> Self:
        """Start."""
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "server", "serve"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
            start_new_session=True,
        )
        self._port_known = threading.Event()
        self._port = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            if not self._port_known.wait(START_TIMEOUT_S) or not self._port:
                raise TimeoutError("the server did not start to listen:\n" + self.tail())
            self.listening_s = time.monotonic() - self._started
            if self._ready:
                self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Stop."""
        self.stop()

    @property
    def pid(self) -> int:
        """Of the HTTP process."""
        return self._process.pid

    @property
    def url(self) -> str:
        """Without a path: `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self._port}"

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait for `/health` to answer 200."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with {self._process.returncode}:\n" + self.tail())
            if httpx.get(f"{self.url}/health", timeout=60).status_code == 200:
                self.ready_s = time.monotonic() - self._started
                return
            time.sleep(0.1)
        raise TimeoutError("the model did not become ready:\n" + self.tail())

    def wait_end(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """The exit code, once the process has ended by itself."""
        return self._process.wait(timeout_s)

    def stop(self) -> int:
        """Ask to stop, insist after a while; the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._reader.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._data.cleanup()
        return self._process.returncode

    @property
    def data_dir(self) -> str:
        """Where uploaded files lie."""
        return self._data.name

    def standby_is_ready(self) -> bool:
        """Whether an engine process waits to replace a lost one."""
        return self.metrics().get("tessera_engine_standby") == 1

    def metrics(self) -> dict[str, float]:
        """Every sample of `/metrics`, by its name with labels."""
        headers = {"Authorization": f"Bearer {key}"} if (key := self._environment.get("TESSERA_API_KEY")) else {}
        text = httpx.get(f"{self.url}/metrics", headers=headers).raise_for_status().text
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def processes(self) -> dict[int, str]:
        """Pid and command line of every process below the server's."""
        found: dict[int, str] = {}
        todo = [self.pid]
        while todo:
            for task in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
                for pid in map(int, task.read_text().split()):
                    found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    todo.append(pid)
        return found

    def tail(self) -> str:
        """The last lines of the log."""
        return "".join(self.log[-60:])

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.log.append(line)
            if not self._port and (match := re.search(r"http://127\.0\.0\.1:(\d+)", line)):
                self._port = int(match[1])
                self._port_known.set()
        self._port_known.set()
