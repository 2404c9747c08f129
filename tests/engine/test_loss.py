"""The engine's processes killed under load: requests fail at once, the next ones are served, nothing is left behind."""

import asyncio
import os
import secrets
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_executor.client.engine_client import EngineClient
from model_executor.engine import EngineSettings, EngineState, EngineUnavailableError, Prompt, SamplingParams
from tests.support.engines import START_TIMEOUT_S, ready
from tests.support.oracle import Oracle
from tests.support.prompts import collect, ids_of

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PROMPT = Prompt([100, 200, 300])
LONG = SamplingParams(max_tokens=20_000, temperature=0, ignore_eos=True)


def descendants(process_id: int) -> list[int]:
    """Every process below one."""
    own = children(process_id)
    return own + [further for child in own for further in descendants(child)]


def children(process_id: int) -> list[int]:
    """The processes that one has started itself."""
    tasks = Path(f"/proc/{process_id}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def engine_process(host: int) -> int:
    """VLLM's engine process, told by the name it gives itself."""
    return next(each for each in descendants(host) if "EngineCore" in Path(f"/proc/{each}/cmdline").read_text())


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files of our own, with a name short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="loss-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


async def spare_of(engine: EngineClient, others: set[int]) -> int:
    """The host that waits, once there is one; `others` are processes that have nothing to do with this engine."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            for child in set(children(os.getpid())) - others - {engine.process_id}:
                if "model_executor.engine_process.main" in Path(f"/proc/{child}/cmdline").read_text():
                    return child
            await asyncio.sleep(0.1)


async def test_killed_processes_are_replaced_by_the_spare_and_nothing_is_left(oracle: Oracle, temporary: Path) -> None:
    others = set(children(os.getpid()))
    engine = EngineClient(oracle.folder, EngineSettings(dtype="float32", kv_cache_bytes=256 << 20))
    await engine.start()
    with pytest.raises(EngineUnavailableError) as loading:
        await collect(engine, PROMPT, LONG)
    assert loading.value.state is EngineState.LOADING
    await ready(engine)
    expected = ids_of(await collect(engine, PROMPT, SamplingParams(max_tokens=4, temperature=0)))
    seen: list[int] = []
    for victim in ("engine", "host"):
        host = engine.process_id
        assert host is not None
        spare = await spare_of(engine, others)
        seen += [host, spare, *descendants(host)]
        answers = [engine.generate(secrets.token_hex(8), PROMPT, LONG) for _ in range(2)]
        await asyncio.gather(*(anext(answer) for answer in answers))
        killed_s = time.monotonic()
        os.kill(engine_process(host) if victim == "engine" else host, signal.SIGKILL)
        for answer in answers:
            with pytest.raises(EngineUnavailableError) as lost:
                _ = [delta async for delta in answer]
            assert lost.value.state is EngineState.RESTARTING
        assert time.monotonic() - killed_s < 20  # at once; not when the next engine is up
        with pytest.raises(EngineUnavailableError):
            await engine.stats()
        await ready(engine)
        assert engine.process_id == spare
        assert ids_of(await collect(engine, PROMPT, SamplingParams(max_tokens=4, temperature=0))) == expected
    assert engine.process_id is not None
    seen += [await spare_of(engine, others), engine.process_id, *descendants(engine.process_id)]
    await engine.close()
    assert not [process_id for process_id in seen if alive(process_id)]
    assert list(temporary.iterdir()) == []


async def test_impossible_settings_are_told_at_once_and_not_tried_again(oracle: Oracle) -> None:
    engine = EngineClient(oracle.folder, EngineSettings(dtype="float32", kv_cache_bytes=1 << 20, warm_standby=False))
    await engine.start()
    async with asyncio.timeout(120):
        while engine.state is not EngineState.FAILED:
            await asyncio.sleep(0.1)
    await engine.close()
    assert engine.failure is not None and "TESSERA_ENGINE__KV_CACHE_BYTES" in engine.failure
