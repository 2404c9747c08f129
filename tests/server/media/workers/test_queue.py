"""Who goes first, and when nobody else may come."""

import asyncio

import pytest

from model_executor.fair_queue import CLIENT
from server.core.errors import RateLimitError
from server.media.messages import ImageBudget, Job
from server.media.progress import FrameCount
from server.media.workers import queue as queue_module
from server.media.workers.queue import LARGE_JOB_S, JobQueue, QueuedJob

BUDGET = ImageBudget(min_pixels=784, max_pixels=10**6, resized=None, max_source_pixels=10**6)
JOB = Job(contents=["x"], is_frame_list=False, output=None, budget=BUDGET, timeout_s=1)


def put(queue: JobQueue, estimate_s: float) -> QueuedJob:
    return queue.put(JOB, estimate_s=estimate_s, frames=FrameCount())


async def order(queue: JobQueue, *, takes_large: bool = True) -> list[float]:
    taken = []
    while True:
        try:
            async with asyncio.timeout(0.01):
                taken.append((await queue.next(takes_large=takes_large)).estimate_s)
        except TimeoutError:
            return taken


async def test_cheap_jobs_overtake_dear_ones_and_equal_ones_keep_their_order() -> None:
    queue = JobQueue(num_workers=2, max_waiting=9, timeout_s=1000)
    tickets = [put(queue, estimate_s) for estimate_s in (20.0, 0.1, 5.0, 5.0, 0.2)]
    assert queue.remove(tickets[2]) and not queue.remove(tickets[2])
    assert await order(queue) == [0.1, 0.2, 5.0, 20.0]
    assert len(queue) == 0


async def test_the_worker_for_small_jobs_leaves_large_ones() -> None:
    queue = JobQueue(num_workers=2, max_waiting=9, timeout_s=1000)
    for estimate_s in (LARGE_JOB_S, 0.9 * LARGE_JOB_S, 50.0):
        put(queue, estimate_s)
    assert await order(queue, takes_large=False) == [0.9 * LARGE_JOB_S]
    assert len(queue) == 2


async def test_no_job_is_overtaken_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = JobQueue(num_workers=2, max_waiting=9, timeout_s=1000)
    monkeypatch.setattr(queue_module, "MAX_LEAD_S", 0.05)
    put(queue, 900.0)
    await asyncio.sleep(0.06)
    put(queue, 2.0)
    assert await order(queue) == [900.0, 2.0]


async def test_work_ahead_is_bounded_and_only_that() -> None:
    queue = JobQueue(num_workers=3, max_waiting=99, timeout_s=60)
    for _ in range(7):
        put(queue, 20.0)  # before the last one comes, 120 s of work wait for two workers
    with pytest.raises(RateLimitError, match="about 140 s long") as caught:
        put(queue, 20.0)
    assert caught.value.retry_after_s == 10
    put(queue, 0.1)  # goes first, so nothing is ahead of it
    assert len(queue) == 8


async def test_a_new_job_wakes_an_idle_worker() -> None:
    queue = JobQueue(num_workers=1, max_waiting=0, timeout_s=60)
    with pytest.raises(RateLimitError, match="max_queued_jobs"):
        put(queue, 0.1)
    workers = [asyncio.create_task(queue.next(takes_large=True)) for _ in range(2)]
    await asyncio.sleep(0)
    first, second = put(queue, 0.2), put(queue, 0.1)
    assert {id(await worker) for worker in workers} == {id(first), id(second)}


def put_as(queue: JobQueue, client: str, estimate_s: float) -> QueuedJob:
    CLIENT.set(client)
    return put(queue, estimate_s)


async def test_clients_take_turns_by_the_work_they_have_had() -> None:
    queue = JobQueue(num_workers=1, max_waiting=99, timeout_s=1000)
    for _ in range(6):
        put_as(queue, "many small", 1.0)
    for _ in range(2):
        put_as(queue, "few large", 3.0)
    order = []
    while len(queue):
        ticket = await queue.next(takes_large=True)
        order.append(ticket.estimate_s)
        queue.finish(ticket)
    assert order == [1.0, 3.0, 1.0, 1.0, 1.0, 3.0, 1.0, 1.0]


async def test_a_client_that_comes_later_does_not_catch_up_on_what_it_never_asked_for() -> None:
    queue = JobQueue(num_workers=1, max_waiting=99, timeout_s=1000)
    for _ in range(20):
        put_as(queue, "early", 1.0)
    for _ in range(10):
        queue.finish(await queue.next(takes_large=True))
    for _ in range(20):
        put_as(queue, "late", 1.0)
    taken = []
    for _ in range(10):
        ticket = await queue.next(takes_large=True)
        taken.append(ticket.client)
        queue.finish(ticket)
    assert taken.count("late") == 5


async def test_a_full_queue_refuses_the_client_that_filled_it() -> None:
    queue = JobQueue(num_workers=1, max_waiting=4, timeout_s=1000)
    crowd = [put_as(queue, "greedy", 0.1) for _ in range(4)]
    with pytest.raises(RateLimitError):
        put_as(queue, "greedy", 0.1)
    put_as(queue, "other", 0.1)
    assert isinstance(crowd[-1].outcome.exception(), RateLimitError)
    assert len(queue) == 4


async def test_the_work_of_others_counts_as_far_as_it_goes_first() -> None:
    queue = JobQueue(num_workers=1, max_waiting=99, timeout_s=60)
    for _ in range(3):
        put_as(queue, "greedy", 30.0)
    with pytest.raises(RateLimitError):
        put_as(queue, "greedy", 30.0)
    put_as(queue, "other", 30.0)  # only as much goes before it as it is itself
