"""Tessera and stock `vllm serve` on the same weights, measured by one client in alternating rounds of one run.

Run: `make bench-vllm`, which makes the environment of the stock server, too (`requirements/stock_vllm.sh`). Prints the
median of each row for both, the spread of the rounds, and their ratio. `--rounds`, `--model` and `--dtype` choose.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from model_executor.checkpoint.config import BUNDLED_MODEL
from model_executor.cpu import num_cores

ROOT = Path(__file__).parents[1]
STOCK = ROOT / ".venv-vllm/bin/python"
NAME = "bench"
START_TIMEOUT_S = 600


@dataclass(frozen=True)
class Load:
    """What is asked in a round, and the rows that come of it."""

    name: str
    options: tuple[str, ...]
    """Of `tessera bench`."""
    rows: Mapping[str, Callable[[Any], float]]
    """Name of a row to its value in what `tessera bench --json` prints."""
    on_busy_cores: bool = False
    """Whether other programs keep the cores busy at the same time."""


def _rate(result: Any) -> float:
    return float(result["answer_tokens_per_s"])


def _requests(result: Any) -> float:
    return float(result["requests_per_s"])


def _first(result: Any) -> float:
    return float(result["first_token_s"]["p50"]) * 1000


_TEXT = ("--mix", "text=1", "--max-tokens", "128", "--ignore-eos")
_IMAGES = ("--mix", "image=1", "--max-tokens", "16", "--ignore-eos")
_HD = ("--mix", "image=1", "--image-size", "1920x1080", "--max-tokens", "8", "--ignore-eos")
_VIDEO = ("--mix", "video=1", "--video-size", "640x360", "--video-seconds", "6", "--max-tokens", "8", "--ignore-eos")
LOADS = (
    Load("one text stream", (*_TEXT, "--requests", "8"), {"tokens/s": _rate, "first token, ms": _first}),
    Load("one text stream, busy cores", (*_TEXT, "--requests", "4"), {"tokens/s": _rate}, on_busy_cores=True),
    Load(
        "eight text streams",
        (*_TEXT, "--requests", "32", "--concurrency", "8"),
        {"tokens/s": _rate, "first token, ms": _first},
    ),
    Load("one stream of new 640x480 images", (*_IMAGES, "--requests", "12"), {"requests/s": _requests}),
    Load(
        "eight streams of new 640x480 images",
        (*_IMAGES, "--requests", "32", "--concurrency", "8"),
        {"requests/s": _requests},
    ),
    Load("1920x1080 images, 4 at a time", (*_HD, "--requests", "16", "--concurrency", "4"), {"requests/s": _requests}),
    Load(
        "6 s videos 640x360, 2 at a time", (*_VIDEO, "--requests", "8", "--concurrency", "2"), {"requests/s": _requests}
    ),
    Load("the same 1920x1080 image again", (*_HD, "--requests", "8", "--same-media"), {"first token, ms": _first}),
)


def main() -> None:
    """Start both servers, ask them in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, help="checkpoint folder (default: the bundled model)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    options = parser.parse_args()
    if not STOCK.exists():
        sys.exit("There is no .venv-vllm: run 'make bench-vllm', or requirements/stock_vllm.sh.")
    model = options.model or ROOT / "training/bundle"
    loads = [load for load in LOADS if options.only in load.name]
    print(f"{model.name}, {options.dtype}, {num_cores()} cores, {options.rounds} rounds; medians [lowest-highest]\n")
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        urls = {
            "stock": stack.enter_context(running(_stock(model, options.dtype))),
            "tessera": stack.enter_context(running(_tessera(model, options.dtype))),
        }
        for name, (_, ready_s) in urls.items():
            values["start", "ready, s"][name].append(ready_s)
        for number in range(options.rounds):
            for load in loads:
                seed = number * len(LOADS) + LOADS.index(load)
                for name in sorted(urls, reverse=bool(number % 2)):
                    result = measured(urls[name][0], load, seed)
                    for row, value_of in load.rows.items():
                        values[load.name, row][name].append(value_of(result))
            print(f"round {number + 1} of {options.rounds} is done", flush=True)
    print(f"\n{'':58}{'stock':>22}{'tessera':>22}{'ratio':>8}")
    for (load_name, row), by_server in values.items():
        stock, own = by_server["stock"], by_server["tessera"]
        ratio = statistics.median(own) / statistics.median(stock)
        print(f"{load_name + ', ' + row:58}{_shown(stock):>22}{_shown(own):>22}{ratio:8.2f}")


def measured(url: str, load: Load, seed: int) -> Any:
    """What `tessera bench` measures of a load; another seed makes other questions, which no cache knows."""
    command = [sys.executable, "-m", "tessera_cli", "bench", "--url", f"{url}/v1", "--json", "--seed", str(seed)]
    concurrency = () if "--concurrency" in load.options else ("--concurrency", "1")
    spinners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(num_cores())]
    try:
        if not load.on_busy_cores:
            _end(spinners)
        done = subprocess.run([*command, *load.options, *concurrency], check=True, stdout=subprocess.PIPE, text=True)
    finally:
        _end(spinners)
    result = json.loads(done.stdout)[0]
    if result["errors"]:
        sys.exit(f"Not all requests of '{load.name}' were answered: {result['errors']}")
    return result


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()


@contextmanager
def running(start: tuple[list[str], dict[str, str], int]) -> Iterator[tuple[str, float]]:
    """A server from start to end: its root, and the seconds until it answered a first question."""
    command, environment, port = start
    log = ROOT / f".bench-{port}.log"
    began_s = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=output, stderr=output, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    body = {"model": NAME, "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 1}
    try:
        while True:
            if process.poll() is not None or time.monotonic() - began_s > START_TIMEOUT_S:
                sys.exit(f"A server did not start:\n{log.read_text()[-3000:]}")
            try:
                if httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield url, time.monotonic() - began_s
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        log.unlink()


def _stock(model: Path, dtype: str) -> tuple[list[str], dict[str, str], int]:
    """`vllm serve` with its defaults, but for what both must have alike."""
    port = _free_port()
    arguments = ["serve", str(model), "--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port)]
    alike = ["--dtype", dtype, "--enable-prefix-caching", "--max-num-seqs", "16"]
    big = ["--limit-mm-per-prompt", '{"image":1,"video":0}', "--skip-mm-profiling"]  # profiling would take 20 GiB
    own = [] if model.name == "bundle" else big
    environment = {"VLLM_PLUGINS": "", "PYTHONPATH": "", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    return [str(STOCK), "-m", "vllm.entrypoints.cli.main", *arguments, *alike, *own], environment, port


def _tessera(model: Path, dtype: str) -> tuple[list[str], dict[str, str], int]:
    """`tessera serve` with its defaults."""
    port = _free_port()
    environment = {
        "TESSERA_MODEL": str(BUNDLED_MODEL if model.name == "bundle" else model),
        "TESSERA_SERVED_MODEL_NAME": NAME,
        "TESSERA_HOST": "127.0.0.1",
        "TESSERA_PORT": str(port),
        "TESSERA_ENGINE__DTYPE": dtype,
    }
    return [sys.executable, "-m", "server", "serve"], environment, port


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _shown(values: list[float]) -> str:
    middle = statistics.median(values)
    digits = 0 if middle >= 100 else 1
    return f"{middle:.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


if __name__ == "__main__":
    main()
