"""Cache of prepared images and videos: one entry per key, its patches a file in shared memory, shared by requests.

The first request of a key starts the work; requests that come while it runs wait for the same work, which is canceled
only when none waits any more. A ready entry stays as long as a request holds a lease on it. After that it is kept for
later requests until newer entries or other work need the memory: the least recently used one goes first.

What it does not: make keys, or know how an item is prepared (`server/media/preprocessor.py`). All of it runs in one
event loop's thread.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.core.metrics import CacheLoad
from server.media.messages import Prepared
from server.media.progress import FrameCount
from server.media.shared_memory import SharedFile


@dataclass(frozen=True, slots=True)
class CachedMedia:
    """What an entry holds."""

    prepared: Prepared
    patches: SharedFile


@dataclass(eq=False, slots=True)
class _Entry:
    key: str
    work: "asyncio.Task[CachedMedia]"
    frames: FrameCount
    num_holders: int = 0
    patches: SharedFile | None = None
    """Set once the work is done."""
    files: set[Path] = field(default_factory=set)
    """Uploaded files it was made of; it goes when one of them does."""
    is_unwanted: bool = False
    """Whether one of them has gone while it was in use."""
    idle_since_s: float = 0.0


class CacheLease:
    """One request's claim on an entry; made by `MediaCache.lease`."""

    def __init__(self, cache: "MediaCache", entry: _Entry) -> None:
        self._cache = cache
        self._entry = entry
        self._released = False
        self.key = entry.key
        """The entry's; equal for equal content prepared the same way for the same tenant, and only then."""

    @property
    def frames(self) -> FrameCount:
        """How far the work is."""
        return self._entry.frames

    async def ready(self) -> CachedMedia:
        """What the entry holds, once it is prepared. Where this raises, or is cancelled, the claim is released.

        Raises:
            Exception: what preparing it raised; the same instance for everyone who waits.
        """
        work = self._entry.work
        try:
            await asyncio.wait({work})  # unlike awaiting the task itself, cancelling this leaves it running
            return work.result()
        except BaseException:
            self.release()
            if work.cancelling():  # nobody else waits: once this returns, everything is released
                await asyncio.wait({work})
            raise

    def made_of(self, file: Path) -> None:
        """Have the entry go with an uploaded file."""
        self._entry.files.add(file)

    def release(self) -> None:
        """Give the claim up; may be called more than once."""
        if not self._released:
            self._released = True
            self._cache._drop(self._entry)


class MediaCache:
    """Entries by key.

    Args:
        max_bytes: patches kept while no request uses them; 0 keeps none, and requests at the same time still share.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: dict[str, _Entry] = {}
        self._idle: OrderedDict[str, SharedFile] = OrderedDict()
        """Of `_entries`, those that nobody holds, the one unused for longest first."""
        self._idle_bytes = 0
        self._num_hits = self._num_misses = self._num_evictions = 0

    @property
    def load(self) -> CacheLoad:
        """A reading, for metrics."""
        return CacheLoad(self._num_hits, self._num_misses, self._num_evictions, self._idle_bytes)

    def find(self, key: str) -> CacheLease | None:
        """Claim an entry that is ready; None where there is none."""
        entry = self._entries.get(key)
        return None if entry is None or entry.patches is None else self._claim(entry)

    def lease(
        self, key: str, prepare: Callable[[FrameCount], Coroutine[Any, Any, CachedMedia]], inputs: ExitStack
    ) -> CacheLease:
        """Claim an entry; where there is none, its preparation starts.

        Args:
            key: of the content, of everything its patches depend on, and of the tenant.
            prepare: starts the work and updates the count; canceled when nobody waits for it any more.
            inputs: what `prepare` reads; closed as soon as it is no longer needed.
        """
        entry = self._entries.get(key)
        if entry is None:
            self._num_misses += 1
            frames = FrameCount()
            entry = self._entries[key] = _Entry(key, asyncio.create_task(prepare(frames)), frames)
            # The first of its callbacks, so that it has run before those who wait continue.
            entry.work.add_done_callback(lambda _: self._settle(entry, inputs))
        else:
            inputs.close()
            return self._claim(entry)
        entry.num_holders += 1
        return CacheLease(self, entry)

    def reclaim(self, num_bytes: int) -> int:
        """Delete entries that nobody holds until `num_bytes` are free or none is left; returns the bytes freed."""
        freed_bytes = 0
        while self._idle and freed_bytes < num_bytes:
            key, patches = self._idle.popitem(last=False)
            del self._entries[key]
            self._num_evictions += 1
            self._idle_bytes -= patches.num_bytes
            freed_bytes += patches.num_bytes
            patches.release()
        return freed_bytes

    def forget_file(self, file: Path) -> None:
        """Give up what was made of an uploaded file: at once, or with the last request that uses it."""
        for entry in [entry for entry in self._entries.values() if file in entry.files]:
            entry.is_unwanted = True
            if entry.patches is not None:
                self._give_up(entry)

    def forget_older(self, age_s: float) -> None:
        """Give up what nobody has used for so long."""
        before_s = time.monotonic() - age_s
        for key in [key for key in self._idle if self._entries[key].idle_since_s <= before_s]:
            self._give_up(self._entries[key])

    def _give_up(self, entry: _Entry) -> None:
        """Remove an entry that nobody holds, and have nobody find one that is held."""
        self._forget(entry)
        if (patches := self._idle.pop(entry.key, None)) is not None:
            self._idle_bytes -= patches.num_bytes
            patches.release()

    def _claim(self, entry: _Entry) -> CacheLease:
        """One more claim on an existing entry."""
        self._num_hits += 1
        if (patches := self._idle.pop(entry.key, None)) is not None:
            self._idle_bytes -= patches.num_bytes
        entry.num_holders += 1
        return CacheLease(self, entry)

    def _drop(self, entry: _Entry) -> None:
        entry.num_holders -= 1
        if entry.num_holders:
            return
        if not entry.work.done():
            self._forget(entry)  # the next request starts anew
            entry.work.cancel()
        elif entry.patches is not None:
            if entry.is_unwanted:
                entry.patches.release()
            else:
                self._keep(entry.key, entry.patches)

    def _settle(self, entry: _Entry, inputs: ExitStack) -> None:
        """The work has ended, one way or another."""
        inputs.close()
        if entry.work.cancelled() or entry.work.exception() is not None:
            self._forget(entry)
            return
        entry.frames.finish()
        entry.patches = entry.work.result().patches
        if self._entries.get(entry.key) is not entry:  # dropped in the moment it finished
            entry.patches.release()
        elif entry.is_unwanted:  # by now; those who wait for it get it, nobody else
            self._forget(entry)
        elif not entry.num_holders:
            self._keep(entry.key, entry.patches)

    def _keep(self, key: str, patches: SharedFile) -> None:
        """Keep what nobody holds any more, within the bound; a file above the bound evicts nothing else."""
        self._idle[key] = patches
        self._entries[key].idle_since_s = time.monotonic()
        self._idle_bytes += patches.num_bytes
        if patches.num_bytes > self._max_bytes:
            self._idle.move_to_end(key, last=False)
        self.reclaim(self._idle_bytes - self._max_bytes)

    def _forget(self, entry: _Entry) -> None:
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
