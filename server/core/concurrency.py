"""Runs blocking work in a thread, for event-loop code: to completion, or abandoned when the caller is canceled."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def run_to_completion(work: Callable[[], T]) -> T:
    """Run `work` in a thread; a canceled caller continues only when the work has ended.

    For work on files: a file is never closed during a write.
    """
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it
        raise


async def run_abandonable(work: Callable[[], T]) -> T:
    """Run `work` in a daemon thread; a canceled caller continues at once, and the process can exit at any time.

    For work that may take hours, such as downloads.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(action: Callable[[], None]) -> None:
        if not result.done():  # the caller may have been canceled
            action()

    def run() -> None:
        try:
            value = work()
        except BaseException as error:
            failure = error
            _post_to_loop(loop, lambda: settle(lambda: result.set_exception(failure)))
        else:
            _post_to_loop(loop, lambda: settle(lambda: result.set_result(value)))

    threading.Thread(target=run, daemon=True, name="abandonable").start()
    return await result


def _post_to_loop(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    if not loop.is_closed():  # closed: the process is exiting
        loop.call_soon_threadsafe(action)
