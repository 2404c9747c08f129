"""The client, its supervisor and the session, against real processes without vLLM."""

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from model_executor.client import engine_client, process, supervisor
from model_executor.client.engine_client import EngineClient
from model_executor.engine import (
    EngineBusyError,
    EngineState,
    EngineUnavailableError,
    Prompt,
    RequestFailedError,
    RequestRefusedError,
    SamplingParams,
)
from model_executor.fair_queue import CLIENT
from model_executor.ipc import WINDOW
from tests.support.scripted_engine import GOOD, ask, running, until_stats
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def group(process_id: int) -> list[int]:
    """Living processes of a process group."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == process_id and fields[0] != "Z":
            members.append(int(stat.parent.name))
    return members


async def test_answers_stream_and_interleave() -> None:
    async with running("fine") as client:
        assert client.max_model_len == 64
        texts = await asyncio.gather(*(ask(client, num_tokens=50, name=str(number)) for number in range(4)))
        assert set(texts) == {"".join(f"{number} " for number in range(50))}


async def test_errors_arrive_as_what_they_are() -> None:
    async with running("fine") as client:
        with pytest.raises(RequestRefusedError, match="no such thing") as refused:
            await ask(client, Prompt([1]))
        assert (refused.value.param, refused.value.code) == ("temperature", "a_code")
        with pytest.raises(RequestFailedError, match="it gave up"):
            await ask(client, Prompt([2]))
        with pytest.raises(RequestFailedError, match="unexpected"):
            await ask(client, Prompt([3]))
        assert await ask(client) == "0 1 2 3 4 "


async def test_closing_or_canceling_aborts_in_the_engine_process() -> None:
    async with running("fine") as client:
        closed = client.generate("closed", GOOD, SamplingParams(max_tokens=10_000))
        await anext(closed)
        cancelled = asyncio.create_task(ask(client, num_tokens=1_000_000, name="cancelled"))
        await until_stats(client, lambda stats: stats.num_running == 2)
        await closed.aclose()
        cancelled.cancel()
        await until_stats(client, lambda stats: stats.num_running == 0)


async def test_a_reader_that_stands_still_is_sent_no_more_than_the_window() -> None:
    async with running("fine") as client:
        still = client.generate("still", GOOD, SamplingParams(max_tokens=10_000))
        await anext(still)
        await until_stats(client, lambda stats: stats.generation_tokens >= WINDOW)
        await asyncio.sleep(0.1)  # more would come now
        assert (await client.stats()).generation_tokens <= WINDOW + 2
        await still.aclose()
        assert await ask(client, num_tokens=10 * WINDOW) == "".join(f"{number} " for number in range(10 * WINDOW))


async def test_crowd_is_refused_and_room_is_free_at_once_after_an_abort() -> None:
    async with running("fine", max_num_seqs=2) as client:  # and two may wait
        crowd = [client.generate(str(number), GOOD, SamplingParams(max_tokens=10_000)) for number in range(4)]
        for answer in crowd[:2]:
            await anext(answer)
        waiting = [asyncio.create_task(anext(answer)) for answer in crowd[2:]]
        await until_stats(client, lambda stats: stats.num_waiting == 2)
        with pytest.raises(EngineBusyError):
            await ask(client)
        for answer in crowd[:2]:
            await answer.aclose()
        assert [delta.text for delta in await asyncio.gather(*waiting)] == ["0 ", "0 "]
        for answer in crowd[2:]:
            await answer.aclose()
        assert await ask(client)


async def test_another_client_passes_the_crowd_of_one() -> None:
    async with running("fine", max_num_seqs=2) as client:
        CLIENT.set("greedy")
        crowd = [client.generate(str(number), GOOD, SamplingParams(max_tokens=10_000)) for number in range(4)]
        begun = [asyncio.create_task(anext(answer)) for answer in crowd]
        await until_stats(client, lambda stats: stats.num_waiting == 2)
        CLIENT.set("other")
        assert await ask(client)
        for task in begun:
            task.cancel()
        await asyncio.wait(begun)
        for answer in crowd:
            await answer.aclose()


async def test_one_request_with_more_choices_than_room_is_taken_when_alone() -> None:
    async with running("fine", max_num_seqs=2) as client:
        deltas = [d async for d in client.generate("many", GOOD, SamplingParams(max_tokens=2, n=16))]
        assert len(deltas) == 2


@pytest.mark.parametrize("how", ["killed", "dies of the request"])
async def test_lost_engine_process_fails_requests_at_once_and_is_replaced(how: str) -> None:
    async with running("fine") as client:
        process_id = client.process_id
        assert process_id is not None
        waiting = client.generate("waiting", GOOD, SamplingParams(max_tokens=10_000))
        await anext(waiting)
        since_s = time.monotonic()
        if how == "killed":
            os.kill(process_id, signal.SIGKILL)
        else:
            with pytest.raises(EngineUnavailableError):
                await ask(client, Prompt([4]), name="poison")
        with pytest.raises(EngineUnavailableError):
            _ = [delta async for delta in waiting]
        assert time.monotonic() - since_s < 15
        with pytest.raises(EngineUnavailableError) as restarting:
            await client.stats()
        assert restarting.value.state is EngineState.RESTARTING
        await until(lambda: client.state is EngineState.READY)
        assert client.process_id != process_id
        assert await ask(client)


async def test_not_ready_is_said_with_the_state() -> None:
    async with running("never-ready", ready=False) as client:
        with pytest.raises(EngineUnavailableError) as loading:
            await ask(client)
        assert loading.value.state is EngineState.LOADING


async def failed(client: EngineClient) -> str:
    await until(lambda: client.state is EngineState.FAILED)
    assert client.failure is not None
    return client.failure


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("impossible", "the model is a fish"),
        ("unready", "3 times in a row: the pond is dry"),
        ("crashes", "3 times"),
        ("babbles", "3 times"),
    ],
)
async def test_hopeless_starts_end_as_failed_with_the_reason(model: str, reason: str) -> None:
    async with running(model, ready=False) as client:
        assert reason in await failed(client)
        assert client.process_id is None
        with pytest.raises(EngineUnavailableError) as unavailable:
            await ask(client)
        assert unavailable.value.state is EngineState.FAILED


@pytest.mark.slow
async def test_start_that_takes_too_long_is_stopped_even_if_deaf_to_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_TIMEOUT_S", 0.2)
    async with running("never-ready", ready=False, start_timeout_s=1) as client:
        assert "3 times" in await failed(client)


async def test_close_leaves_no_process_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_TIMEOUT_S", 0.5)
    async with running("leaves-children") as client:
        process_id = client.process_id
        assert process_id is not None
        assert len(group(process_id)) > 1
    assert group(process_id) == []


async def test_close_while_a_lost_engine_process_is_stopped_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_TIMEOUT_S", 0.5)
    async with running("leaves-children") as client:
        process_id = client.process_id
        assert process_id is not None
        os.kill(process_id, signal.SIGKILL)
        await until(lambda: client.state is EngineState.RESTARTING)
        assert group(process_id) != []
    assert group(process_id) == []


async def test_a_start_the_machine_has_no_room_for_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "SPAWN_PAUSE_S", 0.2)
    async with running("fine") as client:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not-there"))
        assert client.process_id is not None
        os.kill(client.process_id, signal.SIGKILL)
        await until(lambda: "cannot be started" in caplog.text)
        (tmp_path / "not-there").mkdir()
        await until(lambda: client.state is EngineState.READY)
        assert await ask(client)


async def test_a_start_the_machine_never_has_room_for_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(supervisor, "SPAWN_PAUSE_S", 0.05)
    async with running("fine") as client:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not-there"))
        assert client.process_id is not None
        os.kill(client.process_id, signal.SIGKILL)
        await until(lambda: client.state is EngineState.FAILED)
        assert client.failure == "the engine failed to start 3 times in a row"


async def test_the_end_of_supervision_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> process.EngineProcess:
        raise ZeroDivisionError

    async with running("fine") as client:
        monkeypatch.setattr(process.EngineProcess, "spawn", broken)
        assert client.process_id is not None
        os.kill(client.process_id, signal.SIGKILL)
        await until(lambda: client.state is EngineState.FAILED)
        assert client.failure == "the supervision of the engine failed (ZeroDivisionError)"
        with pytest.raises(EngineUnavailableError):
            await ask(client)


async def test_a_host_that_is_frozen_is_replaced_and_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_client, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(engine_client, "SILENCE_S", 0.5)
    async with running("fine") as client:
        frozen = client.process_id
        assert frozen is not None
        answer = client.generate("waiting", GOOD, SamplingParams(max_tokens=10_000))
        await anext(answer)
        os.kill(frozen, signal.SIGSTOP)
        since_s = time.monotonic()
        with pytest.raises(EngineUnavailableError):
            _ = [delta async for delta in answer]
        assert time.monotonic() - since_s < 10
        await until(lambda: client.state is EngineState.READY)
        assert client.process_id != frozen and not group(frozen)
        assert await ask(client)
