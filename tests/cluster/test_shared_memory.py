"""Responses and conversations that servers share, on a real Redis, against the memory in the process as the oracle."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic_core import to_json

from server.core.errors import UnavailableError
from server.core.settings import ResponsesSettings
from server.core.shared_state import SharedState
from server.responses.memory.shared import SharedMemory, _keys
from server.responses.memory.store import ProcessMemory, StoredConversation, StoredItem, StoredResponse
from tests.support.cluster import Part, redis_server
from tests.support.images import png
from tests.support.world import OpenWorld

pytestmark = pytest.mark.cluster


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Part]:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as part:
        yield part


@asynccontextmanager
async def memory(redis: Part, **limits: Any) -> AsyncIterator[SharedMemory]:
    state = SharedState(SecretStr(f"redis://127.0.0.1:{redis.port}"))
    yield SharedMemory(ResponsesSettings(**limits), state)
    await state.close()


def item(name: str, text: str = "") -> StoredItem:
    return StoredItem(name, to_json({"id": name, "text": text}))


async def test_an_entry_is_there_on_all_servers_and_its_tenants_own(redis: Part) -> None:
    response = StoredResponse("r", b"\x00body", (item("i", "ä"), item("j")), (item("k"),))
    conversation = StoredConversation("c", 7, {"topic": "cats"}, (item("i", "ä"),))
    async with memory(redis) as one, memory(redis) as two:
        for entry in (response, conversation):
            assert await one.put("a", entry)
            assert await two.get("a", entry.id) == entry and await two.get("b", entry.id) is None
        assert await two.find_item("a", "k") == item("k") and await two.find_item("b", "k") is None
        assert not await two.delete("b", "r") and await two.delete("a", "r") and not await one.delete("a", "r")
        assert await one.get("a", "r") is None and await one.find_item("a", "k") is None
        assert await one.find_item("a", "i") == item("i", "ä")  # the conversation has it still


async def test_the_oldest_makes_room_and_bytes_are_those_of_what_is_reachable(redis: Part) -> None:
    rng = random.Random(1)
    async with memory(redis, max_key_entries=6, max_key_bytes=1500) as kept:
        oracle = ProcessMemory(ResponsesSettings(max_key_entries=6), lambda: 0)
        pool: list[StoredItem] = []
        for number in range(200):
            pool.append(item(f"i{rng.randrange(4)}", "x" * rng.randrange(100)))  # ids repeat, as a client may choose
            name = f"r{rng.randrange(12)}"
            entry = StoredResponse(name, b"x" * (number % 7), tuple(rng.choices(pool[-20:], k=rng.randrange(4))), ())
            assert await kept.put("t", entry) and await oracle.put("t", entry)
            if rng.random() < 0.2:
                name = f"r{rng.randrange(12)}"
                assert await kept.delete("t", name) <= await oracle.delete("t", name)
            alive = {f"r{i}": found for i in range(12) if (found := await kept.get("t", f"r{i}"))}
            for name, found in alive.items():
                assert found == await oracle.get("t", name)
            names = [key.rpartition(":")[2] for key in _keys("t")]
            entries, _, order, items, uses, _, _, num_bytes = _keys("t")
            values = [len(value) for key in (entries, items) for value in await kept._state.redis.hvals(key)]
            assert int(await kept._state.redis.get(num_bytes) or 0) == sum(values) <= 1500, names
            reachable = {one.id + str(one.fields) for found in alive.values() for one in found.items}
            assert await kept._state.redis.hlen(items) == await kept._state.redis.hlen(uses) == len(reachable)
            assert await kept._state.redis.zcard(order) == len(alive) <= 6


async def test_what_is_too_large_moves_nothing_out_and_what_is_old_is_gone(redis: Part) -> None:
    async with memory(redis, max_key_bytes=400) as kept:
        assert await kept.put("t", StoredResponse("a", b"x", (), ()))
        assert not await kept.put("t", StoredResponse("b", b"x", (item("i", "x" * 500),), ()))
        assert await kept.get("t", "a") is not None
        order = _keys("t")[2]
        await kept._state.redis.zincrby(order, -90_000, "a")
        assert await kept.get("t", "a") is None
        assert not await kept._state.redis.exists(order)


async def test_an_answer_is_not_lost_because_it_cannot_be_kept(redis: Part) -> None:
    async with memory(redis) as kept:
        await kept.put("t", StoredResponse("a", b"x", (), ()))
        redis.kill()
        assert not await kept.put("t", StoredResponse("b", b"x", (), ()))
        with pytest.raises(UnavailableError):
            await kept.get("t", "a")
        redis.start()
        assert await kept.get("t", "a") is not None


async def test_a_conversation_with_a_file_goes_on_at_another_server(
    open_world: OpenWorld, redis: Part, tmp_path: Path
) -> None:
    shared: dict[str, Any] = {
        "state_url": f"redis://127.0.0.1:{redis.port}",
        "files": {"store": str(tmp_path / "store")},
    }
    async with open_world(**shared, data_dir=tmp_path / "one") as one:
        sent = await one.client.post("/v1/files", files={"file": ("a.png", png())}, data={"purpose": "vision"})
        part = {"type": "input_image", "file_id": sent.json()["id"]}
        text = {"type": "input_text", "text": "What is it?"}
        first = await one.respond(input=[{"role": "user", "content": [part, text]}], store=True)
        assert first.status_code == 200, first.text
        async with open_world(**shared, data_dir=tmp_path / "two") as two:
            second = await two.respond(input="And its color?", previous_response_id=first.json()["id"])
            assert second.status_code == 200, second.text
            (seen,) = two.media.parts
            assert (tmp_path / "two") in Path(seen.source.path).parents  # type: ignore[union-attr]
            again = await two.client.get(f"/v1/responses/{first.json()['id']}")
            assert again.json()["output"] == first.json()["output"]
