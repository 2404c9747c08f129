"""A queue that serves clients in turn, so that no client waits for all of another client's requests.

A client is an API key, or an address where there are no keys. The handler of a request sets `CLIENT`; its tasks
inherit it. The same queue stands before the engine, grammars, name servers, downloads, uploads and large
bodies; the queue of media jobs (`server/media/workers/queue.py`) orders by the same turns.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass

CLIENT: ContextVar[str] = ContextVar("client", default="")
"""The client of the current request; the empty string for the server's own work."""


class QueueFullError(Exception):
    """The queue is full, and no other client has more requests in it than this one."""


@dataclass(eq=False, slots=True)
class _Waiting:
    num_places: int
    granted: "asyncio.Future[None]"


class FairQueue:
    """A number of places, given to clients in turn. Belongs to one event loop.

    Args:
        num_places: places in total.
        max_per_client: maximum for one client at a time; the rest is for the others.
        max_waiting: requests that may wait. In a full queue the client with most of them loses its newest one to a
            client with fewer.
    """

    def __init__(self, num_places: int, *, max_per_client: int, max_waiting: int) -> None:
        self._num_places = num_places
        self._max_per_client = min(max_per_client, num_places)
        self._max_waiting = max_waiting
        self._taken: Counter[str] = Counter()
        self._waiting: dict[str, deque[_Waiting]] = {}
        """By client; the next client in turn comes first."""

    @property
    def num_taken(self) -> int:
        """Occupied places."""
        return self._taken.total()

    @property
    def num_waiting(self) -> int:
        """Waiting requests."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def place(self, num_places: int = 1) -> AsyncIterator[None]:
        """Wait for a place and occupy it until exit.

        Args:
            num_places: number of places; more than `max_per_client` count as that many.

        Raises:
            QueueFullError: the queue is full.
        """
        await self.take(num_places)
        try:
            yield
        finally:
            self.give_back(num_places)

    async def take(self, num_places: int = 1) -> None:
        """Wait for a place; the caller must `give_back` it, as the same client.

        Raises:
            QueueFullError: the queue is full.
        """
        client, num_places = CLIENT.get(), min(num_places, self._max_per_client)
        if client not in self._waiting and self._fits(client, num_places):
            self._taken[client] += num_places
            return
        if self.num_waiting >= self._max_waiting:
            self._make_room(client)
        waiting = _Waiting(num_places, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(client, deque()).append(waiting)
        try:
            await waiting.granted
        except BaseException:
            if waiting.granted.done() and not waiting.granted.cancelled() and waiting.granted.exception() is None:
                self.give_back(num_places)  # canceled at the moment it was granted
            else:
                self._drop(client, waiting)
                self._hand_out()  # to one that it blocked
            raise

    def give_back(self, num_places: int = 1) -> None:
        """Release places that `take` has occupied."""
        client = CLIENT.get()
        self._taken[client] -= min(num_places, self._max_per_client)
        if not self._taken[client]:
            del self._taken[client]
        self._hand_out()

    def _fits(self, client: str, num_places: int) -> bool:
        has_room = self.num_taken + num_places <= self._num_places
        return has_room and self._taken[client] + num_places <= self._max_per_client

    def _hand_out(self) -> None:
        """Grant places to one waiting request of each client in turn."""
        granted = True
        while granted:
            granted = False
            for client, waiting in list(self._waiting.items()):
                first = waiting[0]
                if first.granted.done():  # canceled, and its task has not run since
                    self._drop(client, first)
                    granted = True
                elif self._fits(client, first.num_places):
                    self._taken[client] += first.num_places
                    self._drop(client, first)
                    if client in self._waiting:  # the others come first next time
                        self._waiting[client] = self._waiting.pop(client)
                    first.granted.set_result(None)
                    granted = True

    def _drop(self, client: str, waiting: _Waiting) -> None:
        with suppress(KeyError, ValueError):  # rejected before
            self._waiting[client].remove(waiting)
            if not self._waiting[client]:
                del self._waiting[client]

    def _make_room(self, client: str) -> None:
        """Reject the newest request of the client with the most waiting, unless that is `client`.

        Raises:
            QueueFullError: no other client has at least two more waiting.
        """
        greediest = max(self._waiting, key=lambda other: len(self._waiting[other]), default=client)
        own = len(self._waiting.get(client, ()))
        if greediest == client or len(self._waiting[greediest]) <= own + 1:
            raise QueueFullError
        newest = self._waiting[greediest][-1]
        self._drop(greediest, newest)
        if not newest.granted.done():  # else its task was canceled and has not run since
            newest.granted.set_exception(QueueFullError())
