"""Web pages of allowed origins can ask and read everything, errors included; others cannot."""

from typing import Any

import httpx
import pytest

from server.core.settings import SettingsError, load_settings
from server.middleware.cors import EXPOSED_HEADERS
from tests.support.error_body import check_error
from tests.support.fakes import FakeEngine
from tests.support.world import OpenWorld, ServerFixture

PAGE = "https://page.example"


async def preflight(
    world: ServerFixture, origin: str = PAGE, method: str = "POST", path: str = "/v1/chat/completions"
) -> Any:
    headers = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    return await world.client.options(path, headers=headers)


def exposed(response: httpx.Response) -> set[str]:
    return set(response.headers["access-control-expose-headers"].split(", "))


@pytest.mark.parametrize("origins", [PAGE, f"http://localhost:3000, {PAGE}"])
async def test_a_preflight_needs_no_key(open_world: OpenWorld, origins: str) -> None:
    async with open_world(api_key="secret", cors_origins=origins) as world:
        response = await preflight(world)
    assert response.status_code == 200 and response.headers["x-request-id"]
    assert response.headers["access-control-allow-origin"] == PAGE
    assert response.headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-lang"
    assert {"GET", "POST", "DELETE"} <= set(response.headers["access-control-allow-methods"].split(", "))
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(
    ("origin", "method"), [("https://other.example", "POST"), (PAGE, "PATCH"), ("null", "POST"), (PAGE + ":81", "GET")]
)
async def test_any_other_preflight_is_refused(open_world: OpenWorld, origin: str, method: str) -> None:
    async with open_world(cors_origins=PAGE) as world:
        check_error(await preflight(world, origin, method), 400, code="cors_refused")


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_can_be_read(open_world: OpenWorld, stream: bool) -> None:
    async with open_world(cors_origins=PAGE) as world:
        world.client.headers["origin"] = PAGE
        response = await world.ask(stream=stream)
    assert response.status_code == 200 and response.headers["access-control-allow-origin"] == PAGE
    assert exposed(response) == set(EXPOSED_HEADERS) and "Origin" in response.headers["vary"]


async def test_errors_can_be_read(open_world: OpenWorld) -> None:
    engine = FakeEngine(script=lambda *_: [RuntimeError("fault")])
    async with open_world(api_key="secret", cors_origins=PAGE, engine=engine) as world:
        world.client.headers["origin"] = PAGE
        refused = await world.ask()
        world.client.headers["authorization"] = "Bearer secret"
        responses = [refused, await world.ask(temperature=9), await world.ask(), await world.client.get("/nowhere")]
    assert [response.status_code for response in responses] == [401, 400, 500, 404]
    for response in responses:
        assert response.headers["access-control-allow-origin"] == PAGE
        assert {"x-request-id", "retry-after"} <= exposed(response)


async def test_other_origins_get_no_leave_to_read(open_world: OpenWorld) -> None:
    async with open_world(cors_origins=PAGE) as world:
        response = await world.client.get("/health", headers={"origin": "https://other.example"})
    assert response.status_code == 200 and "access-control-allow-origin" not in response.headers


async def test_a_star_is_for_everybody(open_world: OpenWorld) -> None:
    async with open_world(cors_origins="*") as world:
        assert (await preflight(world, "https://any.example")).headers["access-control-allow-origin"] == "*"
        response = await world.client.get("/health", headers={"origin": "https://any.example"})
    assert response.headers["access-control-allow-origin"] == "*"


async def test_is_off_by_default(world: ServerFixture) -> None:
    check_error(await preflight(world), 405, code="method_not_allowed")
    response = await world.client.get("/health", headers={"origin": PAGE})
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "origins", ["page.example", "https://page.example/", "https://Page.example", "https://a b", "**"]
)
def test_refuses_what_is_no_origin(origins: str) -> None:
    with pytest.raises(SettingsError, match=r"TESSERA_CORS_ORIGINS .*must be"):
        load_settings(["--cors-origins", origins])
