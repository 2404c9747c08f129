"""Starts vLLM from the settings: engine arguments, process layout, and checks of settings that cannot work."""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.request import LoRARequest
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.executor.abstract import Executor

from model_executor.checkpoint.config import Checkpoint
from model_executor.checkpoint.lora import MAX_RANK, Adapter
from model_executor.checkpoint.quantization import CPU_FORMATS
from model_executor.cpu import has_int8_tiles, has_native_bfloat16
from model_executor.engine import CPU_KV_CACHE_BYTES, EngineSettings
from model_executor.engine_process.adapter_names import translated
from model_executor.engine_process.stats import StatsCollector

CPU_SEQS = 16
CPU_BATCHED_TOKENS = 2048
GPU_GRAPH_SIZES = (
    *(1, 2, 4),
    *range(8, 64, 8),
    *range(64, 256, 16),
    *range(256, 512, 64),
    *range(512, 1024, 128),
    *range(1024, 2049, 256),
)
"""Numbers of tokens whose steps are recorded as CUDA graphs: far fewer than vLLM's 51 up to 512, and up to prompts of
an image, which otherwise wait for the processor."""
_RANKS = (8, 16, 32, 64, 128, 256, 320, MAX_RANK)
"""Values that vLLM accepts as the largest rank."""
_ADAPTED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
"""Modules with room for adapters; others would only cost time (`model_executor/checkpoint/lora.py` rejects
them)."""


class SettingsError(Exception):
    """The settings and the model can never work together; the text says what to change."""


def launch(
    checkpoint: Checkpoint, settings: EngineSettings, adapters: Sequence[Adapter] = (), *, cpu: bool
) -> tuple[AsyncLLM, StatsCollector]:
    """Start vLLM; returns when it accepts adapters, and requests to the model itself.

    Args:
        checkpoint: the model.
        settings: of the engine.
        adapters: those that `load_adapters` will load.
        cpu: whether this is the CPU build.

    Returns:
        vLLM, and the collector of its statistics.

    Raises:
        SettingsError: see the class.
    """
    if cpu:
        settings = _with_cpu_defaults(settings)
    single = settings.runs_single(cpu=cpu)
    if single and settings.tensor_parallel_size * settings.pipeline_parallel_size > 1:
        raise SettingsError("TESSERA_ENGINE__PROCESS_LAYOUT=single supports one device only; use multi for several")
    if cpu and settings.pipeline_parallel_size > 1:
        raise SettingsError("TESSERA_ENGINE__PIPELINE_PARALLEL_SIZE above 1 needs GPUs")
    if cpu and checkpoint.quantization and not checkpoint.quantization.runs_on_cpu:
        raise SettingsError(
            f"the model's quantization, {checkpoint.quantization}, is not supported on a CPU. Supported: {CPU_FORMATS}"
        )
    try:
        arguments = _arguments(checkpoint, settings, _lora_arguments(adapters, cpu=cpu), cpu=cpu, single=single)
        config = arguments.create_engine_config(UsageContext.OPENAI_API_SERVER)
    except ValueError as error:
        raise SettingsError(f"vLLM rejects these settings: {error}") from error
    _check_kv_cache(config)
    _check_adapters(adapters, config)
    if single and cpu:
        # The CPU platform has just forced "spawn"; a forked child needs no imports.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    stats = StatsCollector()
    engine = AsyncLLM(
        config,
        Executor.get_class(config),
        log_stats=False,
        log_requests=False,
        stat_loggers=[lambda *_: stats],
    )
    return engine, stats


def with_num_seqs(settings: EngineSettings, engine: AsyncLLM) -> EngineSettings:
    """The settings with a number of sequences: where they leave it open, `engine`'s own without room for guests."""
    if settings.max_num_seqs is not None:
        return settings
    return settings.model_copy(update={"max_num_seqs": engine.vllm_config.scheduler_config.max_num_seqs * 8 // 9})


async def load_adapters(engine: AsyncLLM, adapters: Iterable[Adapter]) -> dict[str, LoRARequest]:
    """Load adapters into vLLM; all stay loaded.

    Returns:
        By adapter name: the argument that makes vLLM use the adapter for a request.

    Raises:
        SettingsError: an adapter cannot be loaded.
    """
    requests = {}
    with TemporaryDirectory(prefix="tessera-adapters-") as scratch:
        for number, adapter in enumerate(adapters, start=1):
            request = LoRARequest(adapter.name, number, str(translated(adapter, Path(scratch))))
            try:
                await engine.add_lora(request)
            except Exception as error:  # vLLM's engine process passes on any error, as text only
                raise SettingsError(f"vLLM cannot load the adapter {adapter.name!r}: {error}") from error
            requests[adapter.name] = request
    return requests


def _with_cpu_defaults(settings: EngineSettings) -> EngineSettings:
    defaults = {"max_num_seqs": CPU_SEQS, "max_num_batched_tokens": CPU_BATCHED_TOKENS}
    return settings.model_copy(update={name: getattr(settings, name) or value for name, value in defaults.items()})


def _lora_arguments(adapters: Sequence[Adapter], *, cpu: bool) -> dict[str, Any]:
    if not adapters:
        return {}
    return {
        "enable_lora": True,
        # On a CPU, requests without an adapter compute with the last slot, which must therefore stay empty.
        "max_loras": len(adapters) + cpu,
        "max_lora_rank": next(rank for rank in _RANKS if rank >= max(adapter.rank for adapter in adapters)),
        "lora_target_modules": _ADAPTED,
    }


def _check_adapters(adapters: Iterable[Adapter], config: VllmConfig) -> None:
    """Reject variants of LoRA that vLLM would compute as plain LoRA."""
    for adapter in adapters:
        assert config.lora_config is not None
        try:
            PEFTHelper.from_dict(adapter.config).validate_legal(config.lora_config)
        except (ValueError, TypeError) as error:
            raise SettingsError(f"the adapter {adapter.name!r} is not supported: {error}") from error


def _number_format(checkpoint: Checkpoint, settings: EngineSettings, *, cpu: bool) -> Literal["bfloat16", "float32"]:
    """What the model is computed in.

    Raises:
        SettingsError: the checkpoint's quantization has no float32 here.
    """
    quantization, int8_tiles = checkpoint.quantization, cpu and has_int8_tiles()
    if settings.dtype == "auto":
        return checkpoint.number_format(cpu=cpu, native_bfloat16=has_native_bfloat16(), int8_tiles=int8_tiles)
    if settings.dtype == "float32" and quantization and quantization.needs_bfloat16(int8_tiles=int8_tiles):
        raise SettingsError(f"a model quantized as {quantization} needs TESSERA_ENGINE__DTYPE=auto or bfloat16 here")
    return settings.dtype


def _arguments(
    checkpoint: Checkpoint, settings: EngineSettings, lora: dict[str, Any], *, cpu: bool, single: bool
) -> AsyncEngineArgs:
    max_model_len = settings.max_model_len or checkpoint.max_model_len
    if max_model_len > checkpoint.max_model_len:
        raise SettingsError(
            f"TESSERA_ENGINE__MAX_MODEL_LEN is {max_model_len}; the model supports at most {checkpoint.max_model_len}"
        )
    dtype = _number_format(checkpoint, settings, cpu=cpu)
    max_num_seqs, max_num_batched_tokens = settings.max_num_seqs, settings.max_num_batched_tokens
    if max_num_seqs is not None:
        max_num_seqs += settings.num_guest_seqs
    if max_num_seqs is not None and max_num_batched_tokens is not None:
        max_num_batched_tokens = max(max_num_batched_tokens, max_num_seqs)
    return AsyncEngineArgs(
        model=str(checkpoint.directory),
        tokenizer=str(checkpoint.tokenizer_dir),
        dtype=dtype,
        max_model_len=max_model_len,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs,
        enable_prefix_caching=True,
        enable_chunked_prefill=True,
        kv_cache_memory_bytes=settings.kv_cache_bytes or (CPU_KV_CACHE_BYTES if cpu else None),
        tensor_parallel_size=settings.tensor_parallel_size,
        pipeline_parallel_size=settings.pipeline_parallel_size,
        distributed_executor_backend="uni" if single else None,
        # On a CPU a compiled model starts later and is no faster (models/shared/cpu_text.py).
        enforce_eager=cpu if settings.eager is None else settings.eager,
        generation_config="vllm",  # no sampling defaults from the checkpoint; end tokens come with each request
        # No other backend, which would interpret a schema differently, and no endless white space.
        structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
        mm_processor_cache_gb=0,  # items are file names
        skip_mm_profiling=cpu,
        use_tqdm_on_load=False,  # the server itself says how long it has been loading
        worker_extension_cls="model_executor.models.shared.worker.EncodedMedia",
        **lora,
        **_gpu_arguments(settings),
    )


def _gpu_arguments(settings: EngineSettings) -> dict[str, Any]:
    """What is vLLM's choice where the settings leave it open."""
    arguments: dict[str, Any] = {"kv_cache_dtype": settings.kv_cache_dtype}
    if settings.gpu_memory_share is not None:
        arguments["gpu_memory_utilization"] = settings.gpu_memory_share
    sizes = settings.cuda_graph_sizes
    arguments["compilation_config"] = {
        "cudagraph_capture_sizes": [*GPU_GRAPH_SIZES] if sizes is None else [int(size) for size in sizes.split(",")]
    }
    return arguments


def _check_kv_cache(config: VllmConfig) -> None:
    """Reject a KV cache that cannot hold one request of full length, which would otherwise wait forever."""
    if (available := config.cache_config.kv_cache_memory_bytes) is None:
        return  # vLLM measures and checks it
    model, parallel = config.model_config, config.parallel_config
    per_token = 2 * model.get_num_layers(parallel) * model.get_num_kv_heads(parallel) * model.get_head_size()
    fp8 = config.cache_config.cache_dtype.startswith("fp8")
    item_bytes = 1 if fp8 else torch.tensor([], dtype=model.dtype).element_size()
    block = config.cache_config.block_size
    num_blocks = math.ceil(model.max_model_len / block) + 1  # vLLM reserves one block
    needed = num_blocks * block * per_token * item_bytes
    if available < needed:
        raise SettingsError(
            f"a request of {model.max_model_len} tokens needs a KV cache of {needed} bytes, but it has {available}:"
            f" raise TESSERA_ENGINE__KV_CACHE_BYTES or lower TESSERA_ENGINE__MAX_MODEL_LEN"
        )
