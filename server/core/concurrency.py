"""Runs blocking work in a thread, to completion or abandoned on cancellation; and tasks that must not end."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import NoReturn, TypeVar

T = TypeVar("T")

LOOP_CHECK_S = 0.05
"""Interval at which the event loop's lag is measured."""
RESTART_PAUSE_S = 1.0
"""Between the end of a task that must not end and its restart."""

_log = logging.getLogger(__name__)


async def forever(work: Callable[[], Coroutine[None, None, None]], name: str) -> NoReturn:
    """Run `work`, and run it again whenever it ends, until this is canceled.

    Args:
        work: what must not end by itself.
        name: what the log calls it.
    """
    while True:
        try:
            await work()
            _log.error("%s has ended and is restarted", name)
        except Exception:
            _log.exception("%s has failed and is restarted", name)
        await asyncio.sleep(RESTART_PAUSE_S)


async def watch_loop(observe: Callable[[float], None]) -> None:
    """Measure the event loop's lag, forever.

    Args:
        observe: called with the lag, in seconds, every `LOOP_CHECK_S`.
    """
    loop = asyncio.get_running_loop()
    while True:
        planned_s = loop.time() + LOOP_CHECK_S
        await asyncio.sleep(LOOP_CHECK_S)
        observe(loop.time() - planned_s)


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
