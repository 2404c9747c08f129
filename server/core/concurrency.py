"""Runs work in a thread that a cancelled caller waits for (`run_to_completion`) or leaves (`run_abandonable`)."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def run_to_completion(work: Callable[[], T]) -> T:
    """Do `work` in a thread; a cancelled caller goes on only when it has ended, so no file is closed under a write."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # nobody is left to hear of it
        raise


async def run_abandonable(work: Callable[[], T]) -> T:
    """Do `work` in a thread that keeps neither a cancelled caller nor the process from ending: it may take hours."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(action: Callable[[], None]) -> None:
        if not result.done():  # the waiter may have been cancelled
            action()

    def post(action: Callable[[], None]) -> None:
        if not loop.is_closed():  # closed: the process is ending and nobody waits
            loop.call_soon_threadsafe(settle, action)

    def run() -> None:
        try:
            value = work()
        except BaseException as error:
            failure = error
            post(lambda: result.set_exception(failure))
        else:
            post(lambda: result.set_result(value))

    threading.Thread(target=run, daemon=True, name="abandonable").start()
    return await result
