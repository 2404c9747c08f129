"""HEAD is answered as GET, without a body."""

import pytest

from tests.support.world import OpenWorld, ServerFixture


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/metrics", "/", "/openapi.json", "/v1/files", "/nowhere"])
async def test_head_has_gets_status_and_headers(world: ServerFixture, path: str) -> None:
    head, get = await world.client.head(path), await world.client.get(path)
    assert head.status_code == get.status_code and head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]


async def test_head_is_refused_where_there_is_no_get(world: ServerFixture) -> None:
    answer = await world.client.head("/v1/chat/completions")
    assert answer.status_code == 405 and answer.headers["allow"] == "POST"


async def test_a_connection_lives_on_after_head(open_world: OpenWorld) -> None:
    async with open_world(live=True) as world:
        for path in ("/v1/models", "/openapi.json"):
            head, get = await world.client.head(path), await world.client.get(path)
            assert head.status_code == get.status_code == 200
            assert head.content == b"" and int(head.headers["content-length"]) == len(get.content)
            assert int(get.headers["openai-processing-ms"]) >= 0
