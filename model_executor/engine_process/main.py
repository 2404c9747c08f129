"""The engine process's program: prepares the environment, loads the model into vLLM, serves the socket, exits.

Run by `model_executor/client/supervisor.py`, never by hand:

    python -m model_executor.engine_process.main --model DIRECTORY --shared-memory DIRECTORY --settings JSON --socket N

where N is an inherited end of a socket pair. It imports its libraries, waits for `Start`, loads the model, sends
`Ready` (or `Impossible`, or `Unready`), serves until the peer closes its end or SIGTERM arrives, and logs to stderr.
Exit status: 0 when stopped, EXIT_IMPOSSIBLE when no start can succeed, EXIT_UNREADY when this one failed and another
one may not, EXIT_LOST when vLLM's own engine process was lost, EXIT_PROTOCOL when the peer violates the protocol, 1 for
anything unexpected.

Order matters at startup: the environment is set before torch is imported (OpenMP reads it then), and vLLM's engine
process is forked before any thread exists.
"""

import argparse
import asyncio
import ctypes
import logging
import os
import resource
import signal
import socket
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from model_executor.checkpoint.config import read_checkpoint, weight_bytes
from model_executor.checkpoint.errors import CheckpointError
from model_executor.checkpoint.lora import read_adapters
from model_executor.cpu import num_threads, on_cpu
from model_executor.engine import EngineSettings
from model_executor.engine_process.media_files import OpenMediaFiles
from model_executor.engine_process.session import Session
from model_executor.ipc import Channel, Impossible, Unready, encode, wait_for_start
from model_executor.privacy import close_to_others

if TYPE_CHECKING:
    from model_executor.engine_process.grammar_check import GrammarCheck
    from model_executor.engine_process.vllm_engine import VllmEngine

EXIT_IMPOSSIBLE = 3
EXIT_LOST = 4
EXIT_PROTOCOL = 5
EXIT_UNREADY = 6
_PR_SET_PDEATHSIG = 1
_UNUSED_PACKAGES = ("scipy", "sklearn")
"""transformers and vLLM import these if installed, for audio, losses and drafting: a tenth of the import time."""


def main() -> int:
    """Run the process; returns its exit status."""
    parser = argparse.ArgumentParser(description="The engine process; the server starts it.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--shared-memory", type=Path, required=True)
    parser.add_argument("--settings", type=EngineSettings.model_validate_json, required=True)
    parser.add_argument("--socket", type=int, required=True)
    arguments = parser.parse_args()
    end = socket.socket(fileno=arguments.socket)
    close_to_others()
    _tie_lives(end)
    _allow_many_files()
    cpu = on_cpu()
    _prepare_environment(arguments.settings, arguments.model, cpu=cpu)
    for name in _UNUSED_PACKAGES:
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
    from model_executor.engine_process.grammar_check import GrammarCheck
    from model_executor.engine_process.pickled_weights import check_pickled_weights
    from model_executor.engine_process.vllm_config import (  # torch and vllm read the environment when imported
        SettingsError,
        launch,
        with_num_seqs,
    )
    from model_executor.engine_process.vllm_engine import VllmEngine
    from model_executor.start_failure import StartFailure

    if (start := wait_for_start(end)) is None:
        return 0
    if start.devices:  # CUDA reads it at its first use; nothing above uses CUDA
        os.environ["CUDA_VISIBLE_DEVICES"] = start.devices
    try:
        checkpoint = read_checkpoint(arguments.model)
        check_pickled_weights(checkpoint.directory)
        adapters = read_adapters(arguments.settings.lora_dir, checkpoint.directory)
        grammars = GrammarCheck.fork(checkpoint.tokenizer_dir)
        vllm, stats = launch(checkpoint, arguments.settings, adapters, cpu=cpu)
    except (CheckpointError, SettingsError) as error:
        end.sendall(encode(Impossible(str(error))))
        return EXIT_IMPOSSIBLE
    except Exception as error:  # whatever vLLM raises, and whatever its processes died of
        failure = StartFailure(error)
        end.sendall(encode(Unready(failure.reason) if failure.may_heal else Impossible(failure.reason)))
        return EXIT_UNREADY if failure.may_heal else EXIT_IMPOSSIBLE
    files = OpenMediaFiles(arguments.shared_memory)
    engine = VllmEngine(vllm, stats, files, grammars, checkpoint, adapters)
    try:
        settings = with_num_seqs(arguments.settings, vllm)
        warm_in = None if cpu else arguments.shared_memory
        return asyncio.run(_serve(end, engine, grammars, settings, warm_in))
    except SettingsError as error:
        end.sendall(encode(Impossible(str(error))))
        return EXIT_IMPOSSIBLE
    finally:
        engine.close()


async def _serve(
    end: socket.socket,
    engine: "VllmEngine",
    grammars: "GrammarCheck",
    settings: EngineSettings,
    warm_in: Path | None,
) -> int:
    """Serve until the peer closes its end, SIGTERM arrives, or the engine is lost; returns the exit status.

    Args:
        end: this process's end of the socket.
        engine: generates the answers.
        grammars: compiles grammars first, in a process of its own.
        settings: with the number of sequences.
        warm_in: the shared memory, where requests are tried first; None: nothing compiles at first use.

    Raises:
        SettingsError: an adapter cannot be loaded; nothing was sent.
    """
    grammars.start()
    await engine.load_adapters()
    if warm_in is not None:
        from model_executor.engine_process.warm_up import warm_up

        await warm_up(engine, warm_in, engine.family.image_size)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    channel = await Channel.open(end)
    session = Session(channel, engine, settings)
    serving = asyncio.create_task(session.run())
    loss = asyncio.create_task(engine.wait_for_loss())
    stop = asyncio.create_task(stopped.wait())
    await asyncio.wait({serving, loss, stop}, return_when=asyncio.FIRST_COMPLETED)
    channel.close()
    if loss.done():
        return EXIT_LOST
    if not serving.done():
        serving.cancel()
        await asyncio.wait({serving})
    return 0 if serving.cancelled() or serving.exception() is None else EXIT_PROTOCOL


def _tie_lives(end: socket.socket) -> None:
    """Make the kernel end this process together with its parent, and every forked child together with this process."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        end.close()  # otherwise the peer would not notice when this process closes its end

    os.register_at_fork(after_in_child=in_child)


def _allow_many_files() -> None:
    """Raise the limit on open files: each media item of a running request is one."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def _prepare_environment(settings: EngineSettings, model: Path, *, cpu: bool) -> None:
    """Set the environment variables that torch, OpenMP and vLLM read when they are imported."""
    num_workers = settings.tensor_parallel_size * settings.pipeline_parallel_size
    variables = {
        # Threads that spin while they wait make every step several times slower once another program uses the core.
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",  # the model has been downloaded
        "TRANSFORMERS_VERBOSITY": "error",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # the limit is `Checkpoint.max_model_len`, which counts YaRN in
        "VLLM_PLUGINS": "tessera",
    }
    if cpu:
        # Otherwise the first request with log-probabilities compiles for a quarter of a minute.
        variables["TORCH_COMPILE_DISABLE"] = "1"
        variables["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # the cores are shared with the media workers
    else:
        # xgrammar asks for CUDA devices when it is imported. Answered by CUDA itself, no process forked later could use
        # one; NVML answers without.
        variables["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
        # A forked process needs no imports. Seen to work with one device; several have not been tried.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "fork" if num_workers == 1 else "spawn")
        variables["TRITON_F32_DEFAULT"] = "ieee"  # whoever asks for float32 means it, not its shortened form
    if cpu or settings.num_threads:  # on a GPU the processor's share is small, and vLLM keeps it to one thread
        variables["OMP_NUM_THREADS"] = str(
            settings.num_threads
            or num_threads(weight_bytes(model), num_workers=num_workers * max(1, settings.replicas))
        )
    if settings.runs_single(cpu=cpu):
        variables["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # else the CPU platform moves the worker to a third process
    os.environ.update(variables)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else each start mentions NUMA nodes
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])  # some is said before vLLM reads it
    # vLLM looks through all names of torch.distributed, and each start would tell that one of them is old.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.reduce_op`", FutureWarning)


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # a normal exit would wait for threads that vLLM leaves behind
