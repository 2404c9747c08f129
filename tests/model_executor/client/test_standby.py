"""The warm standby: a second real process, without vLLM, that waits for the first to be lost."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from model_executor.client import process, standby
from model_executor.client.engine_client import EngineClient
from model_executor.engine import EngineState
from tests.support.scripted_engine import ask, running, until_stats
from tests.support.waiting import until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SERVER = """
import asyncio
from tests.support.scripted_engine import serve_for_ever, until_stats
asyncio.run(serve_for_ever())
"""


def processes(parent: int) -> set[int]:
    """Running engine processes of a parent, the standby included."""
    found = set()
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            try:
                if "scripted_host" in Path(f"/proc/{child}/cmdline").read_text():  # of the dead it is empty
                    found.add(child)
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "STANDBY_DELAY_S", 0)


async def waiting(client: EngineClient, parent: int = os.getpid()) -> int:
    """The standby, once there is one."""
    await until(lambda: len(processes(parent)) == 2)
    (found,) = processes(parent) - {client.process_id}
    return found


async def lose(client: EngineClient) -> None:
    """Kill the engine process in service and wait for the next one."""
    assert client.process_id is not None
    os.kill(client.process_id, signal.SIGKILL)
    await until(lambda: client.state is EngineState.RESTARTING)
    await until(lambda: client.state is EngineState.READY)


async def test_takes_over_from_a_lost_process_and_is_followed_by_another() -> None:
    async with running("fine", warm_standby=True) as client:
        for _ in range(2):
            expected = await waiting(client)
            await lose(client)
            assert client.process_id == expected
            assert await ask(client) == "0 1 2 3 4 "


async def test_is_not_there_before_the_first_process_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running("never-ready", ready=False, warm_standby=True) as client:
        await until(lambda: client.process_id is not None)
        await asyncio.sleep(0.3)
        assert processes(os.getpid()) == {client.process_id}
        monkeypatch.setattr(process, "STOP_TIMEOUT_S", 0.2)


async def test_is_not_started_if_it_is_switched_off() -> None:
    async with running("fine") as client:
        await asyncio.sleep(0.3)
        assert processes(os.getpid()) == {client.process_id}
        await lose(client)
        assert await ask(client)


async def test_another_follows_one_that_is_lost() -> None:
    async with running("fine", warm_standby=True) as client:
        lost = await waiting(client)
        os.kill(lost, signal.SIGKILL)
        await until(lambda: lost not in processes(os.getpid()))
        expected = await waiting(client)
        assert expected != lost
        await until_stats(client, lambda stats: stats.num_standby == 1)
        await lose(client)
        assert client.process_id == expected


async def test_one_that_cannot_be_made_is_made_later(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(standby, "STANDBY_DELAY_S", 0.1)
    async with running("fine", warm_standby=True) as client:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not-there"))
        await asyncio.sleep(0.5)
        assert processes(os.getpid()) == {client.process_id}
        (tmp_path / "not-there").mkdir()
        assert await waiting(client)


async def test_close_takes_it_along_with_its_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with running("fine", warm_standby=True) as client:
        await waiting(client)
        assert len(list(tmp_path.iterdir())) == 2
    assert processes(os.getpid()) == set()
    assert list(tmp_path.iterdir()) == []


async def test_close_while_it_is_being_started_leaves_nothing() -> None:
    async with running("fine", warm_standby=True):
        pass
    assert processes(os.getpid()) == set()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_ends_with_the_server_however_that_ends(how: signal.Signals) -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER], cwd=ROOT)
    try:
        await until(lambda: len(processes(server.pid)) == 2)
        both = processes(server.pid)
    finally:
        server.send_signal(how)
        server.wait(10)
    await until(lambda: not any(_runs(process_id) for process_id in both))


def _runs(process_id: int) -> bool:
    try:
        return "scripted_host" in Path(f"/proc/{process_id}/cmdline").read_text()
    except FileNotFoundError:
        return False
