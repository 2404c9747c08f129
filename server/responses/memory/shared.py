"""Responses and conversations that several servers share, in Redis or Valkey, changed by scripts there.

Of each tenant, in keys `tessera:responses:{OWNER}:…`: `entries` by id, without their items; `lists` of the digests of
each entry's items; `order` of entries by time; `items` by digest, each once; `uses` of each item; `names`, the newest
digest of each item's id, and `ids` the other way round; `bytes` of entries and items.

`responses.max_total_bytes` is for memory in the process; here each tenant has its bounds, and Redis its `maxmemory`.
"""

import hashlib
import logging
from typing import Any

import msgspec

from server.core.errors import UnavailableError
from server.core.settings import ResponsesSettings
from server.core.shared_state import SharedState
from server.responses.memory.store import Entry, StoredConversation, StoredItem, StoredResponse

_KEYS = ("entries", "lists", "order", "items", "uses", "names", "ids", "bytes")
_log = logging.getLogger("tessera.responses")

_COMMON = """
local entries, lists, order, items, uses, names, ids, bytes = unpack(KEYS)
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local function drop(id)
  local list = redis.call('HGET', lists, id)
  if not list then return 0 end
  local size = redis.call('HSTRLEN', entries, id)
  for digest in string.gmatch(list, '%S+') do
    if redis.call('HINCRBY', uses, digest, -1) <= 0 then
      size = size + redis.call('HSTRLEN', items, digest)
      local name = redis.call('HGET', ids, digest)
      if redis.call('HGET', names, name) == digest then redis.call('HDEL', names, name) end
      for _, key in ipairs({items, uses, ids}) do redis.call('HDEL', key, digest) end
    end
  end
  redis.call('HDEL', entries, id)
  redis.call('HDEL', lists, id)
  redis.call('ZREM', order, id)
  redis.call('DECRBY', bytes, size)
  return 1
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', order, '-inf', now - ARGV[1])) do drop(id) end
"""
"""ARGV[1]: seconds an entry is kept. Drops what has expired."""
_PUT = (
    _COMMON
    + """
local most, most_bytes, id, entry = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local list, size = {}, string.len(entry)
for place = 6, #ARGV, 3 do
  local digest, name, item = ARGV[place], ARGV[place + 1], ARGV[place + 2]
  list[#list + 1] = digest
  if redis.call('HSETNX', items, digest, item) == 1 then size = size + string.len(item) end
  redis.call('HINCRBY', uses, digest, 1)
  redis.call('HSET', names, name, digest)
  redis.call('HSET', ids, digest, name)
end
drop(id)
redis.call('HSET', entries, id, entry)
redis.call('HSET', lists, id, table.concat(list, ' '))
redis.call('ZADD', order, now, id)
local total = redis.call('INCRBY', bytes, size)
while redis.call('ZCARD', order) > most or total > most_bytes do
  drop(redis.call('ZRANGE', order, 0, 0)[1])
  total = tonumber(redis.call('GET', bytes))
end
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, math.ceil(ARGV[1])) end
"""
)
"""ARGV: lifetime, most entries, most bytes, id, entry; digest, id and content of each item."""
_GET = (
    _COMMON
    + """
local list = redis.call('HGET', lists, ARGV[2])
if not list then return {} end
local found = {redis.call('HGET', entries, ARGV[2])}
for digest in string.gmatch(list, '%S+') do found[#found + 1] = redis.call('HGET', items, digest) end
return found
"""
)
"""ARGV: lifetime, id."""
_DELETE = _COMMON + "return drop(ARGV[2])"
_FIND_ITEM = (
    _COMMON
    + """
local digest = redis.call('HGET', names, ARGV[2])
return digest and redis.call('HGET', items, digest)
"""
)


class _Head(msgspec.Struct):
    """An entry without its items."""

    created_at: int = 0
    metadata: dict[str, str] = {}
    body: bytes | None = None
    """Of a response."""
    num_input: int = 0
    """How many of a response's items are its input."""


class SharedMemory:
    """Implements `store.Memory`.

    Args:
        limits: how much is kept of each key, and for how long.
        state: where.
    """

    def __init__(self, limits: ResponsesSettings, state: SharedState) -> None:
        self._limits = limits
        self._state = state
        scripts = (_PUT, _GET, _DELETE, _FIND_ITEM)
        self._put, self._get, self._delete, self._find_item = map(state.redis.register_script, scripts)

    @property
    def is_on(self) -> bool:
        """As `Memory.is_on`."""
        return self._limits.max_key_entries > 0

    async def put(self, tenant: str, entry: Entry) -> bool:
        """As `Memory.put`; an answer is not refused because it cannot be kept."""
        head, items = msgspec.msgpack.encode(_head(entry)), [_encoded(item) for item in entry.items]
        num_bytes = len(head) + sum(len(item) for item in {item for _, _, item in items})
        if not self.is_on or num_bytes > self._limits.max_key_bytes:
            return False
        limits = (self._limits.expires_after_s, self._limits.max_key_entries, self._limits.max_key_bytes)
        arguments: list[Any] = [*limits, entry.id, head, *(part for item in items for part in item)]
        try:
            with self._state.errors():
                await self._put(keys=_keys(tenant), args=arguments)
        except UnavailableError:
            _log.warning("a response or conversation could not be kept")
            return False
        return True

    async def get(self, tenant: str, entry_id: str) -> Entry | None:
        """As `Memory.get`.

        Raises:
            UnavailableError: the shared state does not answer.
        """
        with self._state.errors():
            found = await self._get(keys=_keys(tenant), args=[self._limits.expires_after_s, entry_id])
        if not found:
            return None
        head, items = msgspec.msgpack.decode(found[0], type=_Head), tuple(_decoded(item) for item in found[1:])
        if head.body is None:
            return StoredConversation(entry_id, head.created_at, head.metadata, items)
        return StoredResponse(entry_id, head.body, items[: head.num_input], items[head.num_input :])

    async def delete(self, tenant: str, entry_id: str) -> bool:
        """As `Memory.delete`.

        Raises:
            UnavailableError: the shared state does not answer.
        """
        with self._state.errors():
            return bool(await self._delete(keys=_keys(tenant), args=[self._limits.expires_after_s, entry_id]))

    async def find_item(self, tenant: str, item_id: str) -> StoredItem | None:
        """As `Memory.find_item`.

        Raises:
            UnavailableError: the shared state does not answer.
        """
        with self._state.errors():
            found = await self._find_item(keys=_keys(tenant), args=[self._limits.expires_after_s, item_id])
        return None if found is None else _decoded(found)


def _keys(tenant: str) -> list[str]:
    owner = hashlib.sha256(b"tessera-responses\0" + tenant.encode()).hexdigest()[:32]
    return [f"tessera:responses:{{{owner}}}:{name}" for name in _KEYS]


def _head(entry: Entry) -> _Head:
    if isinstance(entry, StoredConversation):
        return _Head(created_at=entry.created_at, metadata=dict(entry.metadata))
    return _Head(body=entry.body, num_input=len(entry.input))


def _encoded(item: StoredItem) -> tuple[str, str, bytes]:
    """Digest, id and content."""
    return hashlib.sha256(item.data).hexdigest()[:32], item.id, item.data


class _Named(msgspec.Struct):
    """What an item's text is read for here."""

    id: str


def _decoded(content: bytes) -> StoredItem:
    return StoredItem(msgspec.json.decode(content, type=_Named).id, content)
