"""The served model and its limits."""

from model_executor.engine import EngineState
from tests.error_body import check_error
from tests.fakes import MODEL, FakeEngine
from tests.server.conftest import OpenWorld, World

EXPECTED = {"id": MODEL, "object": "model", "created": 1_700_000_000, "owned_by": "tessera", "max_model_len": 4096}


async def test_lists_the_served_model(world: World) -> None:
    assert (await world.client.get("/v1/models")).json() == {"object": "list", "data": [EXPECTED]}


async def test_retrieves_the_served_model(world: World) -> None:
    assert (await world.client.get(f"/v1/models/{MODEL}")).json() == EXPECTED


async def test_does_not_know_other_models(world: World) -> None:
    for name in ("gpt-5", "Qwen/Qwen2-VL-2B-Instruct", "%F0%9F%A6%8A"):
        check_error(await world.client.get(f"/v1/models/{name}"), 404, param="model", code="model_not_found")


async def test_says_when_to_come_back_while_loading(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(state=EngineState.LOADING)) as world:
        check_error(await world.client.get("/v1/models"), 503, code="engine_unavailable")
