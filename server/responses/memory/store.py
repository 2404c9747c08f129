"""Keeps responses and conversations of each key for later requests, bounded in number, bytes and time.

`Memory` is all the rest of the server knows of it, so that it can leave the process; here it is the process's own.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic_core import from_json

from server.core.settings import ResponsesSettings

OBJECT_BYTES = 400
"""What an item or an entry takes in addition to its text, roughly."""


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item as requests and answers have it."""

    id: str
    data: bytes
    """JSON text of an object, with `id`; uploaded files stand in it by their ids."""

    @property
    def fields(self) -> dict[str, Any]:
        """The item's values."""
        values: dict[str, Any] = from_json(self.data)
        return values

    @property
    def num_bytes(self) -> int:
        """What it takes."""
        return OBJECT_BYTES + len(self.data)


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response, and the conversation up to its end."""

    id: str
    body: bytes
    """The response object as JSON."""
    input: tuple[StoredItem, ...]
    """All it was given, earlier responses included."""
    output: tuple[StoredItem, ...]

    @property
    def items(self) -> tuple[StoredItem, ...]:
        """The conversation up to its end."""
        return (*self.input, *self.output)

    @property
    def num_bytes(self) -> int:
        """Without its items."""
        return OBJECT_BYTES + len(self.body)


@dataclass(frozen=True, slots=True)
class StoredConversation:
    """A conversation the client names by its id."""

    id: str
    created_at: int
    """Seconds since 1970."""
    metadata: Mapping[str, str]
    items: tuple[StoredItem, ...]

    @property
    def num_bytes(self) -> int:
        """Without its items."""
        return OBJECT_BYTES + sum(len(name) + len(value) for name, value in self.metadata.items())


Entry = StoredResponse | StoredConversation


class Memory(Protocol):
    """Where entries are kept; each tenant knows its own only. Any entry may be gone at any time."""

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""

    async def put(self, tenant: str, entry: Entry) -> bool:
        """Keep an entry, in place of one with its id; older ones may make room for it. False: there is no such room."""

    async def get(self, tenant: str, entry_id: str) -> Entry | None:
        """The entry of an id, if there is one."""

    async def delete(self, tenant: str, entry_id: str) -> bool:
        """Forget an entry; whether there was one."""

    async def find_item(self, tenant: str, item_id: str) -> StoredItem | None:
        """The item of an id, if an entry has it."""


@dataclass(slots=True)
class _Kept:
    entry: Entry
    put_at_s: float


@dataclass(slots=True)
class _Shelf:
    """What one tenant has; items that several entries share count once."""

    entries: OrderedDict[str, _Kept] = field(default_factory=OrderedDict)
    """Oldest first."""
    uses: dict[int, int] = field(default_factory=dict)
    """How many entries have an item, by its identity: its id is the client's to choose."""
    items: dict[str, StoredItem] = field(default_factory=dict)
    """The newest item of each id."""
    num_bytes: int = 0

    def add(self, entry: Entry, put_at_s: float) -> None:
        self.remove(entry.id)
        self.entries[entry.id] = _Kept(entry, put_at_s)
        self.num_bytes += entry.num_bytes
        for item in entry.items:
            uses = self.uses.get(id(item), 0)
            self.uses[id(item)] = uses + 1
            self.num_bytes += 0 if uses else item.num_bytes
            self.items[item.id] = item

    def remove(self, entry_id: str) -> bool:
        kept = self.entries.pop(entry_id, None)
        if kept is None:
            return False
        self.num_bytes -= kept.entry.num_bytes
        for item in kept.entry.items:
            uses = self.uses.pop(id(item))
            if uses > 1:
                self.uses[id(item)] = uses - 1
                continue
            self.num_bytes -= item.num_bytes
            if self.items.get(item.id) is item:
                del self.items[item.id]
        return True

    def oldest(self) -> tuple[str, float]:
        entry_id, kept = next(iter(self.entries.items()))
        return entry_id, kept.put_at_s


class ProcessMemory:
    """Keeps entries in this process; they end with it.

    Args:
        limits: how much is kept, and for how long.
        clock: in seconds.
    """

    def __init__(self, limits: ResponsesSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is kept yet."""
        self._limits = limits
        self._clock = clock
        self._shelves: dict[str, _Shelf] = {}

    @property
    def is_on(self) -> bool:
        """As `Memory.is_on`."""
        return self._limits.max_key_entries > 0

    @property
    def num_bytes(self) -> int:
        """Of everything that is kept."""
        return sum(shelf.num_bytes for shelf in self._shelves.values())

    async def put(self, tenant: str, entry: Entry) -> bool:
        """As `Memory.put`; the oldest entries make room."""
        num_bytes = entry.num_bytes + sum(item.num_bytes for item in entry.items)
        if not self.is_on or num_bytes > min(self._limits.max_key_bytes, self._limits.max_total_bytes):
            return False
        shelf = self._shelves.setdefault(tenant, _Shelf())
        shelf.add(entry, self._clock())
        self._forget_expired()
        while shelf.entries and (
            len(shelf.entries) > self._limits.max_key_entries or shelf.num_bytes > self._limits.max_key_bytes
        ):
            shelf.remove(shelf.oldest()[0])
        while self.num_bytes > self._limits.max_total_bytes:
            oldest = min(self._filled(), key=lambda other: other.oldest()[1])
            oldest.remove(oldest.oldest()[0])
        self._shelves = {name: other for name, other in self._shelves.items() if other.entries}
        return True

    async def get(self, tenant: str, entry_id: str) -> Entry | None:
        """As `Memory.get`."""
        self._forget_expired()
        shelf = self._shelves.get(tenant)
        kept = None if shelf is None else shelf.entries.get(entry_id)
        return None if kept is None else kept.entry

    async def delete(self, tenant: str, entry_id: str) -> bool:
        """As `Memory.delete`."""
        shelf = self._shelves.get(tenant)
        return shelf is not None and shelf.remove(entry_id)

    async def find_item(self, tenant: str, item_id: str) -> StoredItem | None:
        """As `Memory.find_item`."""
        self._forget_expired()
        shelf = self._shelves.get(tenant)
        return None if shelf is None else shelf.items.get(item_id)

    def _filled(self) -> Iterator[_Shelf]:
        return (shelf for shelf in self._shelves.values() if shelf.entries)

    def _forget_expired(self) -> None:
        expired_s = self._clock() - self._limits.expires_after_s
        for shelf in self._filled():
            while shelf.entries and shelf.oldest()[1] <= expired_s:
                shelf.remove(shelf.oldest()[0])
