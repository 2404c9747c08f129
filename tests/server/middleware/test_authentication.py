"""Keys are asked for first, everywhere but at /health and the page's files."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from server.core.settings import Settings
from tests.support.error_body import check_error
from tests.support.fakes import MODEL
from tests.support.world import OpenWorld, ServerFixture, Unread

PATHS = ["/v1/models", "/v1/models/x", "/metrics", "/openapi.json", "/nowhere", "/playground/nowhere.js"]


@pytest.fixture
async def locked(open_world: OpenWorld) -> AsyncIterator[ServerFixture]:
    async with open_world(api_key="first, second") as world:
        yield world


@pytest.mark.parametrize("path", PATHS)
async def test_every_route_needs_the_key(locked: ServerFixture, path: str) -> None:
    check_error(await locked.client.get(path), 401, code="invalid_api_key")


async def test_health_needs_none(locked: ServerFixture) -> None:
    assert (await locked.client.get("/health")).status_code == 200


@pytest.mark.parametrize("key", ["first", "second"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_each_key_opens(locked: ServerFixture, key: str, scheme: str) -> None:
    locked.client.headers["Authorization"] = f"{scheme} {key}"
    assert (await locked.ask()).status_code == 200


@pytest.mark.parametrize(
    "header",
    ["", "first", "Bearer", "Bearer ", "Bearer firs", "Bearer first,second", "Basic first", "Bearer first second"],
)
async def test_anything_else_does_not_open(locked: ServerFixture, header: str) -> None:
    locked.client.headers["Authorization"] = header
    check_error(await locked.ask(), 401, code="invalid_api_key")


async def test_a_key_of_strange_characters_is_just_wrong(locked: ServerFixture) -> None:
    response = await locked.client.get("/v1/models", headers=[(b"authorization", b"Bearer \xff\xfe")])
    check_error(response, 401, code="invalid_api_key")


async def test_an_operator_opens_some_routes(open_world: OpenWorld) -> None:
    async with open_world(api_key="first", open_routes="/metrics, /tokenize") as world:
        assert (await world.client.get("/metrics")).status_code == 200
        body = {"model": MODEL, "prompt": "a", "tokens": [1]}
        assert (await world.client.post("/tokenize", json=body)).status_code == 200
        check_error(await world.client.post("/detokenize", json=body), 401, code="invalid_api_key")
        check_error(await world.ask(), 401, code="invalid_api_key")
        described = (await world.client.get("/openapi.json", headers={"x-api-key": "first"})).json()["paths"]
        assert described["/metrics"]["get"]["security"] == described["/tokenize"]["post"]["security"] == []
        assert "security" not in described["/detokenize"]["post"]


@pytest.mark.parametrize(
    "settings", [{"open_routes": "/v1/models"}, {"open_routes": "/metrics", "metrics_key": "m"}, {"open_routes": "*"}]
)
def test_no_other_route_is_opened(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="open_routes"):
        Settings(**settings)


async def test_no_key_in_the_query_string(locked: ServerFixture) -> None:
    check_error(await locked.client.get("/v1/models?api_key=first&key=first"), 401, code="invalid_api_key")


async def test_the_key_comes_before_validation(locked: ServerFixture) -> None:
    response = await locked.client.post("/v1/chat/completions", content=b"not json")
    check_error(response, 401, code="invalid_api_key")


async def test_the_key_comes_before_the_body_is_read(locked: ServerFixture) -> None:
    check_error(await locked.client.post("/v1/chat/completions", content=Unread()), 401, code="invalid_api_key")


async def test_no_key_is_required_if_none_is_set(open_world: OpenWorld) -> None:
    async with open_world(api_key=None) as world:
        assert (await world.ask()).status_code == 200
