"""Two real engines on two checkpoints that differ in everything a released one may differ in."""

import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from model_executor.client.engine_client import EngineClient
from model_executor.engine import EngineSettings
from tests.support.engines import ready
from tests.support.oracle import Oracle
from training.random_checkpoint import CheckpointShape, write_random_checkpoint
from training.random_weights import TextShape, VisionShape, WindowVisionShape

GPU_SHARE = 0.1
"""Both engines live at the same time, on one GPU where there is one."""


@pytest.fixture(scope="package")
def vllm_imported() -> None:
    """For tests that look inside: vLLM in this process, which takes some ten seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vLLM and torch warn of each other while they are imported
        import model_executor.models.qwen2_vl.model  # noqa: F401


@pytest.fixture(scope="package")
def shared_memory() -> Iterator[Path]:
    """Where prepared media lie."""
    with TemporaryDirectory(dir="/dev/shm", prefix="test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="package")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """Names and layout of the release, tied head, bfloat16 on disk, one file; heads of 64."""
    folder = tmp_path_factory.mktemp("models") / "release"
    write_random_checkpoint(folder)
    return Oracle(folder)


@pytest.fixture(scope="package")
def other_oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """Names and layout of transformers 5, a head of its own, float32, three files; heads of 128 as in every release."""
    folder = tmp_path_factory.mktemp("models") / "transformers5"
    text = TextShape(num_layers=3, hidden=256, num_heads=2, num_kv_heads=1, mrope_section=(16, 24, 24))
    shape = CheckpointShape(
        text, VisionShape(depth=3, width=64), tied=False, dtype=torch.float32, names="transformers5", num_shards=3
    )
    write_random_checkpoint(folder, shape, seed=1)
    return Oracle(folder)


@pytest.fixture(scope="package")
def window_oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """A Qwen2.5-VL: tied head, bfloat16 on disk, heads of 64, blocks with and without windows in the tower."""
    folder = tmp_path_factory.mktemp("models") / "windows"
    write_random_checkpoint(folder, CheckpointShape(vision=WindowVisionShape()))
    return Oracle(folder)


@pytest.fixture(scope="module")
def world(vllm_imported: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The process group, of one, that parallel linears want."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import cleanup_dist_env_and_memory, init_distributed_environment, initialize_model_parallel

    with set_current_vllm_config(VllmConfig()):
        store = tmp_path_factory.mktemp("store") / "store"
        init_distributed_environment(1, 0, f"file://{store}", 0, "gloo")
        initialize_model_parallel()
        yield
        cleanup_dist_env_and_memory()


@pytest.fixture(scope="package")
async def engine(other_oracle: Oracle, shared_memory: Path) -> AsyncIterator[EngineClient]:
    """An engine with room for everything but a crowd."""
    settings = EngineSettings(
        dtype="float32",
        kv_cache_bytes=256 << 20,
        max_num_seqs=8,
        max_num_waiting=4,
        gpu_memory_share=GPU_SHARE,
        warm_standby=False,
    )
    client = EngineClient(other_oracle.folder, settings, shared_memory=shared_memory)
    await client.start()
    await ready(client)
    yield client
    await client.close()


@pytest.fixture(scope="package")
async def cramped_engine(oracle: Oracle, shared_memory: Path) -> AsyncIterator[EngineClient]:
    """Steps of 64 tokens, and a KV cache that holds little more than one request of full length."""
    settings = EngineSettings(
        dtype="float32",
        max_num_batched_tokens=64,
        max_model_len=1536,
        kv_cache_bytes=7 << 20,
        gpu_memory_share=GPU_SHARE,
        max_num_seqs=8,
        warm_standby=False,
    )
    client = EngineClient(oracle.folder, settings, shared_memory=shared_memory)
    await client.start()
    await ready(client)
    yield client
    await client.close()
