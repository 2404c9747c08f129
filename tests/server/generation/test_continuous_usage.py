"""Token counts with every chunk of a stream, as load generators request them."""

from typing import Any

import pytest

from tests.support.events import events
from tests.support.fakes import MODEL
from tests.support.world import ServerFixture

ROUTES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi."}]}),
    ("/v1/completions", {"prompt": "Hi."}),
]


@pytest.mark.parametrize(("route", "body"), ROUTES)
async def test_every_chunk_counts_what_has_come(world: ServerFixture, route: str, body: dict[str, Any]) -> None:
    asked = {"model": MODEL, **body, "stream": True}
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = events(await world.client.post(route, json={**asked, "stream_options": options}))
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts) and counts[0] >= 1 and counts[-2] == counts[-1] == 3
    assert len({chunk["usage"]["prompt_tokens"] for chunk in chunks}) == 1
    plain = events(await world.client.post(route, json={**asked, "stream_options": {"include_usage": True}}))
    assert [chunk["usage"] for chunk in plain[:-1]] == [None] * (len(plain) - 1)
    assert plain[-1]["usage"] == chunks[-1]["usage"]
    alone = events(await world.client.post(route, json={**asked, "stream_options": {"continuous_usage_stats": True}}))
    assert not any("usage" in chunk for chunk in alone)
