"""Streams with their comments, and how they break off."""

import asyncio
import json
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera_client import Waiting, content, stream
from tessera_client.stream import events
from tests.support.fakes import MODEL, FakeEngine, FakeMedia, say
from tests.support.world import OpenWorld, ServerFixture

ASKED: list[Any] = [{"role": "user", "content": "Hi."}]


async def collected(world: ServerFixture, **fields: Any) -> list[Any]:
    def run() -> list[Any]:
        with openai.OpenAI(base_url=f"{world.url}/v1", api_key="unused", max_retries=0, timeout=20) as client:
            return list(stream(client, **{"model": MODEL, "messages": ASKED, **fields}))

    return await asyncio.to_thread(run)


def text_of(items: list[Any]) -> str:
    return "".join(choice.delta.content or "" for item in items for choice in item.choices)


async def test_the_pieces_of_an_answer(live: ServerFixture) -> None:
    items = await collected(live, stream_options={"include_usage": True})
    assert text_of(items) == "Hello, world!"
    assert items[-1].usage.completion_tokens == 3


@pytest.mark.slow
async def test_tells_how_far_media_are_prepared(open_world: OpenWorld) -> None:
    media = FakeMedia(delay_s=0.5)
    media.frames.num_done, media.frames.num_total = 3, 4
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    async with open_world(live=True, media=media, keep_alive_s=0.1) as world:
        items = await collected(world, messages=[{"role": "user", "content": content("What?", picture)}])
    told = [item for item in items if isinstance(item, Waiting)]
    assert told and told[0].text == "preparing media 75 %"
    assert text_of(items[len(told) :]) == "Hello, world!"


async def test_a_refusal_is_raised_before_anything_comes(live: ServerFixture) -> None:
    with pytest.raises(openai.BadRequestError):
        await collected(live, temperature=7)


async def test_a_failure_within_an_answer_is_an_api_error(open_world: OpenWorld) -> None:
    engine = FakeEngine(script=lambda *_: [say("one", "two")[0], RuntimeError("lost")])
    async with open_world(live=True, engine=engine) as world:
        with pytest.raises(openai.APIError):
            await collected(world)


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b'data: {"id":\n\n', openai.APIError),
        (b"data: [1]\n\n", openai.APIError),
        (b"data: {}", openai.APIConnectionError),  # cut off within the declared length
    ],
)
async def test_what_is_no_stream_of_chunks_is_an_api_error(sent: bytes, error: type[Exception]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 1000\r\n\r\n"
        writer.write(head + sent)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        def run() -> None:
            with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused", max_retries=0) as client:
                list(stream(client, model=MODEL, messages=ASKED))

        with pytest.raises(error):
            await asyncio.to_thread(run)


@given(st.lists(st.tuples(st.booleans(), st.text().filter(lambda text: not set(text) & set("\r\n")))))
def test_every_event_and_comment_comes_back_in_order(sent: list[tuple[bool, str]]) -> None:
    lines: list[str] = []
    for is_data, value in sent:
        lines += [f"data: {json.dumps(value)}", ""] if is_data else [f": {value}"]
    expected = [("data", json.dumps(value)) if is_data else ("comment", value) for is_data, value in sent]
    assert list(events(lines)) == expected


def test_an_event_of_several_lines_is_joined_and_one_without_end_dropped() -> None:
    assert list(events(["event: x", "data:a", "data: b", "", "", "data: c"])) == [("data", "a\nb")]
