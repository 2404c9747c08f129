"""The served model and its limits."""

import pytest

from model_executor.engine import EngineState
from tests.support.error_body import check_error
from tests.support.fakes import MODEL, FakeEngine
from tests.support.world import OpenWorld, ServerFixture

EXPECTED = {
    "id": MODEL,
    "object": "model",
    "created": 1_700_000_000,
    "owned_by": "tessera",
    "max_model_len": 4096,
    "limits": {"max_image_bytes": 32 << 20, "max_video_bytes": 512 << 20},
}


async def test_lists_the_served_model(world: ServerFixture) -> None:
    assert (await world.client.get("/v1/models")).json() == {"object": "list", "data": [EXPECTED]}


async def test_retrieves_the_served_model(world: ServerFixture) -> None:
    assert (await world.client.get(f"/v1/models/{MODEL}")).json() == EXPECTED


async def test_says_how_large_media_may_be(monkeypatch: pytest.MonkeyPatch, open_world: OpenWorld) -> None:
    monkeypatch.setenv("TESSERA_MEDIA__MAX_IMAGE_BYTES", "1000")
    async with open_world() as world:
        limits = (await world.client.get("/v1/models")).json()["data"][0]["limits"]
        assert limits == {"max_image_bytes": 1000, "max_video_bytes": 512 << 20}


async def test_does_not_know_other_models(world: ServerFixture) -> None:
    for name in ("gpt-5", "Qwen/Qwen2-VL-2B-Instruct", "%F0%9F%A6%8A"):
        check_error(await world.client.get(f"/v1/models/{name}"), 404, param="model", code="model_not_found")


async def test_lists_adapters_after_the_model_they_change(open_world: OpenWorld) -> None:
    async with open_world(adapters=("pirate", "poet")) as world:
        listed = (await world.client.get("/v1/models")).json()["data"]
        assert listed == [EXPECTED, *({**EXPECTED, "id": name, "parent": MODEL} for name in ("pirate", "poet"))]
        assert (await world.client.get("/v1/models/poet")).json() == listed[2]
        check_error(await world.client.get("/v1/models/cook"), 404, param="model", code="model_not_found")


async def test_a_request_reaches_the_adapter_it_names(open_world: OpenWorld) -> None:
    async with open_world(adapters=("pirate", "poet")) as world:
        for name in (MODEL, "poet"):
            assert (await world.ask(model=name)).json()["model"] == name
            completion = await world.client.post("/v1/completions", json={"model": name, "prompt": "Once"})
            assert completion.json()["model"] == name
            response = await world.client.post("/v1/responses", json={"model": name, "input": "Hi."})
            assert response.json()["model"] == name
            told = await world.client.post("/v1/chat/completions/preview", json=world.body(model=name))
            assert told.json()["model"] == name
            tokens = await world.client.post("/tokenize", json={"model": name, "prompt": "Once"})
            assert tokens.status_code == 200
        check_error(await world.ask(model="cook"), 404, param="model", code="model_not_found")
    assert [prompt.adapter for prompt in world.engine.prompts] == [None] * 3 + ["poet"] * 3


async def test_says_when_to_come_back_while_loading(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(state=EngineState.LOADING)) as world:
        check_error(await world.client.get("/v1/models"), 503, code="engine_unavailable")
