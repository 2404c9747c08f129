"""Records and quotas of shared files in Redis or Valkey, changed by scripts there, so that they always agree.

    tessera:{files}:records:OWNER   hash: id to record
    tessera:{files}:usage           hash: number and bytes of files, of each owner (n:OWNER, b:OWNER) and of all (n, b)
    tessera:{files}:expiry          OWNER/ID by the second it expires
    tessera:{files}:garbage         OWNER/ID whose content may be deleted, by the second from which on

A content is garbage before it is stored and until its record is there, and again once the record is gone. So whichever
server is killed at whichever moment, another one finds what is left.
"""

from collections.abc import AsyncIterator
from typing import Any, Literal, NamedTuple

import msgspec

from server.core.settings import FilesSettings
from server.core.shared_state import SharedState
from server.files.record import Record

UPLOAD_S = 86_400
"""After this time, an upload that has no record yet is given up."""
_PREFIX = "tessera:{files}:"
_KEYS = [_PREFIX + name for name in ("usage", "expiry", "garbage")]
_BATCH = 100

_ADD = """
local usage, owner, size = KEYS[1], ARGV[1], tonumber(ARGV[4])
local stored = redis.call('HMGET', usage, 'n:' .. owner, 'b:' .. owner, 'b')
if (stored[1] or 0) + 1 > tonumber(ARGV[6]) then return 'files' end
if (stored[2] or 0) + size > tonumber(ARGV[7]) then return 'bytes' end
if (stored[3] or 0) + size > tonumber(ARGV[8]) then return 'total' end
redis.call('HSET', KEYS[4], ARGV[2], ARGV[3])
redis.call('HINCRBY', usage, 'n:' .. owner, 1)
redis.call('HINCRBY', usage, 'b:' .. owner, size)
redis.call('HINCRBY', usage, 'n', 1)
redis.call('HINCRBY', usage, 'b', size)
redis.call('ZADD', KEYS[2], ARGV[5], owner .. '/' .. ARGV[2])
redis.call('ZREM', KEYS[3], owner .. '/' .. ARGV[2])
return ''
"""
"""ARGV: owner, id, record, size, expiry, limits."""
_REMOVE = """
local usage, owner, size = KEYS[1], ARGV[1], tonumber(ARGV[3])
if redis.call('HDEL', KEYS[4], ARGV[2]) == 0 then return 0 end
redis.call('HINCRBY', usage, 'n:' .. owner, -1)
redis.call('HINCRBY', usage, 'b:' .. owner, -size)
redis.call('HINCRBY', usage, 'n', -1)
redis.call('HINCRBY', usage, 'b', -size)
redis.call('ZREM', KEYS[2], owner .. '/' .. ARGV[2])
redis.call('ZADD', KEYS[3], 0, owner .. '/' .. ARGV[2])
return 1
"""
"""ARGV: owner, id, size."""


class SharedRecord(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The metadata of a shared file."""

    digest: str
    """Hex SHA-256 of the content."""


class Usage(NamedTuple):
    """Number and bytes of files: of one owner, and of all."""

    num_files: int
    num_bytes: int
    total_files: int
    total_bytes: int


class Catalog:
    """The records of all files. Every method raises UnavailableError where the shared state does not answer.

    Args:
        state: where they are kept.
        settings: the limits.
    """

    def __init__(self, state: SharedState, settings: FilesSettings) -> None:
        self._state = state
        self._limits = (settings.max_key_files, settings.max_key_bytes, settings.max_total_bytes)
        self._add = state.redis.register_script(_ADD)
        self._remove = state.redis.register_script(_REMOVE)

    async def usage(self, owner: str) -> Usage:
        """What is stored."""
        with self._state.errors():
            counts = await self._state.redis.hmget(_KEYS[0], [f"n:{owner}", f"b:{owner}", "n", "b"])
        return Usage(*(int(count or 0) for count in counts))

    async def announce(self, owner: str, file_id: str) -> None:
        """Note that a content is about to be stored."""
        with self._state.errors():
            until_s = await self._now_s() + UPLOAD_S
            await self._state.redis.zadd(_KEYS[2], {f"{owner}/{file_id}": until_s})

    async def add(self, owner: str, record: SharedRecord) -> Literal["", "files", "bytes", "total"]:
        """Make a file known, unless that exceeds a limit.

        Returns:
            The limit, or an empty text.
        """
        arguments: list[Any] = [owner, record.id, msgspec.json.encode(record), record.num_bytes, record.expires_at]
        with self._state.errors():
            limit = await self._add(keys=[*_KEYS, _records(owner)], args=[*arguments, *self._limits])
        return limit.decode()  # type: ignore[no-any-return]  # one of the script's four

    async def get(self, owner: str, file_id: str) -> SharedRecord | None:
        """The record of an id, if there is one."""
        with self._state.errors():
            stored = await self._state.redis.hget(_records(owner), file_id)
        return None if stored is None else msgspec.json.decode(stored, type=SharedRecord)

    async def all_of(self, owner: str) -> list[SharedRecord]:
        """Every record of an owner."""
        with self._state.errors():
            stored = await self._state.redis.hvals(_records(owner))
        return [msgspec.json.decode(record, type=SharedRecord) for record in stored]

    async def remove(self, owner: str, record: Record) -> bool:
        """Make a file unknown and its content garbage; whether this call was the one that did."""
        with self._state.errors():
            arguments: list[Any] = [owner, record.id, record.num_bytes]
            return bool(await self._remove(keys=[*_KEYS, _records(owner)], args=arguments))

    async def expired(self) -> AsyncIterator[tuple[str, SharedRecord]]:
        """Owner and record of files whose time is over, by the clock of the shared state."""
        for owner, file_id in await self._due(_KEYS[1]):
            if (record := await self.get(owner, file_id)) is not None:
                yield owner, record

    async def garbage(self) -> list[tuple[str, str]]:
        """Owner and id of contents that nobody needs."""
        return await self._due(_KEYS[2])

    async def forget_garbage(self, owner: str, file_id: str) -> None:
        """A content has been deleted."""
        with self._state.errors():
            await self._state.redis.zrem(_KEYS[2], f"{owner}/{file_id}")

    async def _due(self, name: str) -> list[tuple[str, str]]:
        with self._state.errors():
            names: list[Any] = await self._state.redis.zrangebyscore(
                name, "-inf", await self._now_s(), start=0, num=_BATCH
            )
        pairs = (each.decode().partition("/") for each in names)
        return [(owner, file_id) for owner, _, file_id in pairs]

    async def _now_s(self) -> int:
        seconds, _ = await self._state.redis.time()
        return int(seconds)


def _records(owner: str) -> str:
    return f"{_PREFIX}records:{owner}"
