"""What the memory keeps and for how long; its count of bytes is what is reachable, whatever ids clients choose."""

import random
from typing import Any

import pytest

from server.core.settings import ResponsesSettings
from server.responses.memory.items import stored
from server.responses.memory.store import (
    OBJECT_BYTES,
    Entry,
    ProcessMemory,
    StoredConversation,
    StoredItem,
    StoredResponse,
)
from tests.support.clock import Clock

LIMIT = 900 + 8 * OBJECT_BYTES


def memory(clock: Clock | None = None, **limits: Any) -> ProcessMemory:
    return ProcessMemory(ResponsesSettings(**limits), clock or Clock())


def item(name: str, num_bytes: int = 10) -> StoredItem:
    return StoredItem(name, b"x" * num_bytes)


def response(name: str, *items: StoredItem, num_bytes: int = 5) -> StoredResponse:
    return StoredResponse(name, b"x" * num_bytes, items, ())


async def test_an_entry_is_its_tenants_own() -> None:
    kept = memory()
    assert await kept.put("a", response("r", item("i")))
    assert await kept.get("a", "r") and await kept.find_item("a", "i")
    assert await kept.get("b", "r") is None and await kept.find_item("b", "i") is None
    assert not await kept.delete("b", "r") and await kept.delete("a", "r") and not await kept.delete("a", "r")
    assert await kept.find_item("a", "i") is None and kept.num_bytes == 0


async def test_the_oldest_makes_room_by_number_bytes_and_time() -> None:
    kept = memory(max_key_entries=2)
    for name in "abc":
        await kept.put("t", response(name))
    assert [await kept.get("t", name) is not None for name in "abc"] == [False, True, True]
    kept = memory(max_key_bytes=2 * (15 + 2 * OBJECT_BYTES) + 10)
    for name in "abc":
        await kept.put("t", response(name, item(f"i{name}")))
    assert [await kept.get("t", name) is not None for name in "abc"] == [False, True, True]
    clock = Clock()
    kept = memory(clock, expires_after_s=10)
    await kept.put("t", response("a"))
    clock.now_s += 6
    await kept.put("t", response("b"))
    clock.now_s += 5
    assert await kept.get("t", "a") is None and await kept.get("t", "b") is not None
    clock.now_s += 6
    assert await kept.get("t", "b") is None and kept.num_bytes == 0


async def test_all_tenants_together_are_bounded() -> None:
    clock = Clock()
    kept = memory(clock, max_total_bytes=2 * (8 + OBJECT_BYTES) + 4)
    for name in "abc":
        clock.now_s += 1
        await kept.put(name, response("r", num_bytes=8))
    assert [await kept.get(name, "r") is not None for name in "abc"] == [False, True, True]


async def test_what_no_room_can_hold_moves_nothing_out() -> None:
    kept = memory(max_key_bytes=40 + 2 * OBJECT_BYTES)
    await kept.put("t", response("a"))
    assert not await kept.put("t", response("b", item("i", 50)))
    assert await kept.get("t", "a") is not None
    assert not await memory(max_key_entries=0).put("t", response("a"))


async def test_shared_items_count_once_and_live_as_long_as_one_entry_has_them() -> None:
    kept, shared = memory(), item("i", 100)
    await kept.put("t", response("a", shared))
    await kept.put("t", response("b", shared, item("j", 1)))
    assert kept.num_bytes == 5 + 5 + 100 + 1 + 4 * OBJECT_BYTES
    await kept.delete("t", "a")
    assert kept.num_bytes == 5 + 101 + 3 * OBJECT_BYTES and await kept.find_item("t", "i") is shared
    await kept.delete("t", "b")
    assert kept.num_bytes == 0 and await kept.find_item("t", "i") is None


async def test_a_conversation_that_grows_is_counted_once() -> None:
    kept = memory()
    items: tuple[StoredItem, ...] = ()
    for number in range(5):
        items = (*items, item(f"i{number}", 100))
        await kept.put("t", StoredConversation("c", 0, {}, items))
    assert kept.num_bytes == 500 + 6 * OBJECT_BYTES


@pytest.mark.parametrize("seed", range(8))
async def test_bytes_are_those_of_what_is_reachable(seed: int) -> None:
    rng, kept, pool = random.Random(seed), memory(max_key_entries=6, max_key_bytes=LIMIT), list[StoredItem]()
    alive: dict[str, Entry] = {}
    for number in range(300):
        pool.append(item(f"i{rng.randrange(4)}", rng.randrange(200)))  # ids repeat, as a client may choose them
        entry = response(f"r{rng.randrange(12)}", *rng.choices(pool[-20:], k=rng.randrange(4)), num_bytes=number % 7)
        await kept.put("t", entry)
        if rng.random() < 0.2:
            await kept.delete("t", f"r{rng.randrange(12)}")
        alive = {f"r{i}": found for i in range(12) if (found := await kept.get("t", f"r{i}")) is not None}
        reachable = {id(one): one.num_bytes for found in alive.values() for one in found.items}
        assert kept.num_bytes == sum(found.num_bytes for found in alive.values()) + sum(reachable.values()) <= LIMIT
        assert len(alive) <= 6


def test_items_are_written_out() -> None:
    question = stored({"role": "user", "content": "Hi."})
    assert question.fields == {
        "id": question.id,
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "Hi."}],
    }
    assert question.id.startswith("msg_")
    result = stored({"type": "function_call_output", "call_id": "c", "output": "x"})
    assert result.id.startswith("fco_") and result.fields["output"] == "x"
    assert stored({"id": "mine", "role": "assistant", "content": "Ho."}).id == "mine"
