"""Work for the disk, in a thread that is always waited for, and work that must never end."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import NoReturn, TypeVar

T = TypeVar("T")

LOOP_CHECK_S = 0.05
"""How often the event loop's lateness is measured."""
AGAIN_S = 1.0
"""Between the end of work that must never end and its next beginning."""

_log = logging.getLogger(__name__)


async def forever(work: Callable[[], Coroutine[None, None, None]], what: str) -> NoReturn:
    """Do `work`, and do it again whenever it ends, until this is cancelled.

    Args:
        work: what should never end by itself.
        what: its name in the log, which hears of each end.
    """
    while True:
        try:
            await work()
            _log.error("%s has ended and is begun again", what)
        except Exception:
            _log.exception("%s has failed and is begun again", what)
        await asyncio.sleep(AGAIN_S)


async def watch_loop(observe: Callable[[float], None]) -> None:
    """Measure for ever how late the event loop is.

    Args:
        observe: gets the lateness, in seconds, `LOOP_CHECK_S` after `LOOP_CHECK_S`.
    """
    loop = asyncio.get_running_loop()
    while True:
        planned_s = loop.time() + LOOP_CHECK_S
        await asyncio.sleep(LOOP_CHECK_S)
        observe(loop.time() - planned_s)


async def in_thread(work: Callable[[], T]) -> T:
    """Do `work` in a thread; a cancelled caller goes on only when it has ended."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # nobody is left to hear of it
        raise
