"""Health tells the state, to anybody."""

import pytest

from model_executor.engine import EngineState
from tests.support.error_body import check_error_body
from tests.support.fakes import FakeEngine
from tests.support.waiting import until
from tests.support.world import OpenWorld


@pytest.mark.parametrize("state", list(EngineState))
async def test_health_is_200_only_when_ready(open_world: OpenWorld, state: EngineState) -> None:
    async with open_world(engine=FakeEngine(state=state), api_key="secret") as world:
        await until(lambda: world.app.state.service.state is state)
        response = await world.client.get("/health")
    body = response.json()
    assert body.pop("status") == state.value
    if state is EngineState.READY:
        assert response.status_code == 200 and body == {}
    else:
        assert response.status_code == 503 and int(response.headers["retry-after"]) >= 1
        check_error_body(body, 503, code="engine_unavailable")
