"""What may happen to the processes that try grammars: run as a process, since these are forked before threads exist."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from model_executor.engine import EngineBusyError, Grammar, RequestRefusedError
from model_executor.engine_process import grammar_check
from model_executor.engine_process.grammar_check import GrammarCheck
from model_executor.fair_queue import CLIENT
from tests.support.waiting import until


def slow(number: int) -> Grammar:
    """Takes seconds to try, and each number is another grammar."""
    return Grammar(kind="regex", value='"(.|\\n)*"' * (100 + number))


def quick(number: int) -> Grammar:
    return Grammar(kind="choice", value=f'["yes", "no {number}"]')


def children(process_id: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{process_id}/task").glob("*/children") for child in task.read_text().split()
    ]


async def scenario(name: str, folder: Path) -> None:
    """One test, in a process without threads of its own."""
    check = GrammarCheck.fork(folder)
    check.start()
    await globals()[f"scenario_{name}"](check)


async def scenario_turns(check: GrammarCheck) -> None:
    await check.require(quick(0))
    CLIENT.set("greedy")
    crowd = [asyncio.create_task(check.require(slow(number))) for number in range(8)]
    await asyncio.sleep(0.3)
    CLIENT.set("other")
    since_s = time.monotonic()
    await check.require(quick(1))
    assert time.monotonic() - since_s < 5, time.monotonic() - since_s
    for task in crowd:
        task.cancel()
    await asyncio.wait(crowd)
    CLIENT.set("greedy")
    since_s = time.monotonic()
    await check.require(quick(2))  # nobody waits for the crowd any more
    assert time.monotonic() - since_s < 5, time.monotonic() - since_s


async def scenario_bound(check: GrammarCheck) -> None:
    crowd = [asyncio.create_task(check.require(quick(number))) for number in range(grammar_check.MAX_WAITING + 10)]
    await asyncio.gather(*crowd, return_exceptions=True)
    refused = [error for task in crowd if (error := task.exception()) is not None]
    assert len(refused) == 9 and {type(error) for error in refused} == {EngineBusyError}, refused


async def scenario_losses(check: GrammarCheck) -> None:
    for number in range(4):
        keepers = children(os.getpid())
        assert keepers, "the first keeper is a child of this process"
        await check.require(quick(number))
        asking = asyncio.create_task(check.require(slow(number)))
        await asyncio.sleep(0.2)
        os.kill(keepers[0], signal.SIGKILL)
        os.waitpid(keepers[0], 0)
        await until(lambda: len(check._keepers) == 2)
        await check.require(quick(100 + number))
        try:
            await asking
        except RequestRefusedError as error:
            assert "takes too much" in str(error), error
        if not children(os.getpid()):
            break  # from now on keepers are children of keepers
    assert not check.is_lost


async def scenario_end(check: GrammarCheck) -> None:
    await check.require(quick(0))
    for keeper in list(check._keepers):
        keeper.shutdown(2)
    await until(lambda: check.is_lost)


if __name__ == "__main__":
    asyncio.run(scenario(sys.argv[1], Path(__file__).parents[2] / "training" / "bundle"))
