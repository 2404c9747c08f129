"""Work for the disk, in a thread that is always waited for, and work that must never end."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import NoReturn, TypeVar

T = TypeVar("T")

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
