"""Places in turn: bounded for each client, forgotten by whoever left, never lost."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from model_executor.fair_queue import CLIENT, FairQueue, QueueFullError


def as_client(name: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> "asyncio.Task[Any]":
    """Start `work` for a client."""

    async def run() -> Any:
        CLIENT.set(name)
        return await work()

    return asyncio.create_task(run())


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Visit:
    """Takes places and keeps them until told to leave."""

    def __init__(self, queue: FairQueue, client: str, num_places: int = 1) -> None:
        self.inside = False
        self.leave = asyncio.Event()
        self.task = as_client(client, lambda: self._stay(queue, num_places))

    async def _stay(self, queue: FairQueue, num_places: int) -> None:
        async with queue.place(num_places):
            self.inside = True
            await self.leave.wait()
        self.inside = False


async def visits(queue: FairQueue, *clients: str) -> list[Visit]:
    made = [Visit(queue, client) for client in clients]
    await settle()
    return made


async def finish(*made: Visit) -> None:
    for visit in made:
        visit.leave.set()
    await asyncio.gather(*(visit.task for visit in made), return_exceptions=True)


async def test_the_next_place_goes_to_the_next_client_in_turn() -> None:
    queue = FairQueue(1, max_per_client=1, max_waiting=10)
    first, *waiting = made = await visits(queue, "a", "a", "a", "a", "b", "c")
    order = []
    inside = first
    while True:
        inside.leave.set()
        await settle()
        if not (now := [visit for visit in waiting if visit.inside]):
            break
        (inside,) = now
        order.append("aaabc"[waiting.index(inside)])
    assert "".join(order) == "abcaa"
    await finish(*made)
    assert (queue.num_taken, queue.num_waiting) == (0, 0)


async def test_what_one_client_may_not_have_is_there_for_another() -> None:
    queue = FairQueue(4, max_per_client=3, max_waiting=10)
    made = await visits(queue, *"aaaaa", "b")
    assert [visit.inside for visit in made] == [True] * 3 + [False] * 2 + [True]
    await finish(*made)


async def test_a_request_for_more_than_there_is_waits_for_all() -> None:
    queue = FairQueue(4, max_per_client=3, max_waiting=10)
    (small,) = await visits(queue, "a")
    large = Visit(queue, "a", num_places=16)
    await settle()
    assert [large.inside] == [False]
    await finish(small)
    await settle()
    assert [large.inside, queue.num_taken] == [True, 3]
    await finish(large)
    assert queue.num_taken == 0


async def test_whoever_left_is_forgotten() -> None:
    queue = FairQueue(1, max_per_client=1, max_waiting=10)
    inside, gone, next_one = await visits(queue, "a", "b", "c")
    gone.task.cancel()
    await settle()
    assert queue.num_waiting == 1
    await finish(inside)
    await settle()
    assert next_one.inside
    await finish(next_one)


async def test_whoever_leaves_when_the_turn_comes_passes_it_on() -> None:
    queue = FairQueue(1, max_per_client=1, max_waiting=10)
    inside, gone, next_one = await visits(queue, "a", "b", "c")
    inside.leave.set()
    await asyncio.sleep(0)  # the place is granted now, and not yet taken up
    gone.task.cancel()
    await settle()
    assert next_one.inside
    await finish(next_one)
    assert queue.num_taken == 0


async def test_all_may_leave_at_the_same_time() -> None:
    queue = FairQueue(1, max_per_client=1, max_waiting=10)
    made = await visits(queue, *"aaabb")
    for visit in made:
        visit.task.cancel()
    await settle()
    assert (queue.num_taken, queue.num_waiting) == (0, 0)
    (after,) = await visits(queue, "a")
    assert after.inside
    await finish(after)


async def test_whoever_leaves_does_not_hold_up_those_behind() -> None:
    queue = FairQueue(3, max_per_client=3, max_waiting=10)
    (inside,) = await visits(queue, "a")
    large = Visit(queue, "a", num_places=3)
    await settle()
    (small,) = await visits(queue, "a")
    large.task.cancel()
    await settle()
    assert small.inside
    await finish(inside, small)


async def test_a_full_queue_refuses_the_client_that_filled_it_and_nobody_else() -> None:
    queue = FairQueue(1, max_per_client=1, max_waiting=4)
    made = await visits(queue, *"aaaaa")
    (refused,) = await visits(queue, "a")
    assert isinstance(refused.task.exception(), QueueFullError)
    (other,) = await visits(queue, "b")
    assert not other.task.done()
    assert isinstance(made[-1].task.exception(), QueueFullError)  # its newest made room
    assert queue.num_waiting == 4
    await finish(*made[:4], other)


async def test_a_full_queue_of_equals_refuses_one_more() -> None:
    queue = FairQueue(1, max_per_client=1, max_waiting=2)
    made = await visits(queue, "a", "b", "c")
    (refused,) = await visits(queue, "d")
    assert isinstance(refused.task.exception(), QueueFullError)
    await finish(*made)


async def test_no_place_is_ever_lost() -> None:
    queue = FairQueue(5, max_per_client=3, max_waiting=20)
    chance = random.Random(1)

    async def visit() -> None:
        async with queue.place(chance.randrange(1, 6)):
            assert queue.num_taken <= 5
            await asyncio.sleep(chance.random() / 1000)

    tasks = []
    for _ in range(500):
        tasks.append(as_client(chance.choice("abcd"), visit))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.1:
            await asyncio.sleep(0.001)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), asyncio.CancelledError, QueueFullError}
    assert (queue.num_taken, queue.num_waiting) == (0, 0)


@pytest.mark.parametrize("num_clients", [2, 5])
async def test_clients_get_equal_shares_whatever_they_ask_for(num_clients: int) -> None:
    queue = FairQueue(2, max_per_client=2, max_waiting=1000)
    served: list[str] = []

    async def visit() -> None:
        async with queue.place():
            served.append(CLIENT.get())
            await asyncio.sleep(0)

    tasks = [as_client("greedy", visit) for _ in range(300)]
    tasks += [as_client(f"other {number}", visit) for number in range(1, num_clients) for _ in range(10)]
    await asyncio.gather(*tasks)
    num_others = 10 * (num_clients - 1)
    last_other = max(place for place, name in enumerate(served) if name != "greedy")
    assert last_other <= num_others * 2 + 10
