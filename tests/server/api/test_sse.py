"""Events on the wire: framing, keep-alive comments, late errors, the end mark; a generator that is always closed."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from model_executor.engine import EngineState, EngineUnavailableError, RequestFailedError
from server.api.sse import DONE, KEEP_ALIVE, Event, EventStream
from server.core.errors import BadRequestError
from tests.support.error_body import check_error_body


def encode(text: str) -> list[Event]:
    """A text as an event, with a name where it has one before a colon; nothing as none."""
    name, _, data = text.rpartition(":")
    return [Event(data.encode(), name or None)] if text else []


class Source:
    """A generator that knows whether it was closed, and in which task it ran."""

    def __init__(self, *steps: str | float | Exception) -> None:
        self.steps = steps
        self.closed = False
        self.tasks: set[Any] = set()

    async def events(self) -> AsyncGenerator[str, None]:
        self.tasks.add(asyncio.current_task())
        try:
            for step in self.steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    yield step
        finally:
            self.tasks.add(asyncio.current_task())
            self.closed = True


class Wire:
    """What was sent."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.frames: list[bytes] = []
        self.ended = False

    async def send(self, event: Any) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self.headers = {name.decode(): value.decode() for name, value in event["headers"]}
        else:
            self.frames.append(event["body"])
            self.ended = not event["more_body"]


async def never() -> Any:
    await asyncio.Event().wait()


async def run(source: Source, keep_alive_s: float = 5) -> Wire:
    wire = Wire()
    scope = {"type": "http", "state": {"request_id": "r"}}
    await EventStream(source.events(), encode, keep_alive_s=keep_alive_s)(scope, never, wire.send)
    return wire


async def test_an_event_may_have_a_name_and_an_item_no_event() -> None:
    wire = await run(Source("a:1", "", "2"))
    assert wire.frames == [b"event: a\ndata: 1\n\n", b"data: 2\n\n", DONE]


async def test_frames_every_event_and_ends_with_the_mark() -> None:
    source = Source("1", "2", "3")
    wire = await run(source)
    assert wire.frames == [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n", DONE]
    assert wire.status == 200 and wire.ended and source.closed
    assert wire.headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
    }


async def test_an_error_before_the_first_event_leaves_the_response_unstarted() -> None:
    source = Source(BadRequestError("no"))
    wire = Wire()
    with pytest.raises(BadRequestError):
        await EventStream(source.events(), encode, keep_alive_s=5)({"type": "http", "state": {}}, never, wire.send)
    assert wire.status == 0 and source.closed


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (EngineUnavailableError("it was lost", EngineState.RESTARTING), 503, "engine_unavailable"),
        (RequestFailedError("out of blocks in /dev/shm/x"), 500, None),
        (KeyError("a fault"), 500, None),
    ],
)
async def test_a_late_error_is_one_event_before_the_mark(error: Exception, status: int, code: str | None) -> None:
    *_, event, mark = (await run(Source("1", error))).frames
    assert mark == DONE
    check_error_body(json.loads(event.removeprefix(b"data: ")), status, code=code)


async def test_comments_keep_a_silent_stream_open() -> None:
    frames = (await run(Source(0.25, "1", 0.25, "2"), keep_alive_s=0.1)).frames
    assert [frame for frame in frames if frame != KEEP_ALIVE] == [b"data: 1\n\n", b"data: 2\n\n", DONE]
    assert frames[0] == KEEP_ALIVE and frames.count(KEEP_ALIVE) >= 3


async def test_a_comment_tells_the_status_where_there_is_one() -> None:
    texts = iter(["preparing media 37 %", None, "preparing media 38 %"])
    wire = Wire()
    stream = EventStream(Source(0.35, "1").events(), encode, keep_alive_s=0.1, status=lambda: next(texts))
    await stream({"type": "http", "state": {}}, never, wire.send)
    assert wire.frames[:3] == [b": preparing media 37 %\n\n", KEEP_ALIVE, b": preparing media 38 %\n\n"]
    assert wire.frames[-2:] == [b"data: 1\n\n", DONE]


async def test_an_error_after_a_comment_is_an_event() -> None:
    frames = (await run(Source(0.15, BadRequestError("no", param="messages")), keep_alive_s=0.1)).frames
    assert frames[0] == KEEP_ALIVE and frames[-1] == DONE
    check_error_body(json.loads(frames[-2].removeprefix(b"data: ")), 400, param="messages")


@pytest.mark.parametrize("when_s", [0.05, 0.15])
async def test_cancelling_closes_the_generator_in_its_own_task(when_s: float) -> None:
    source = Source("1", 10.0, "2")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run(source, keep_alive_s=0.1), when_s)
    assert source.closed and len(source.tasks) == 1


@pytest.mark.slow
async def test_a_client_that_reads_nothing_stops_the_generator() -> None:
    taken = 0

    async def events() -> AsyncGenerator[str, None]:
        nonlocal taken
        while True:
            taken += 1
            yield "x"

    async def stuck(event: Any) -> None:
        if event["type"] == "http.response.body":
            await asyncio.Event().wait()

    stream = EventStream(events(), encode, keep_alive_s=5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream({"type": "http", "state": {}}, never, stuck), 0.1)
    assert taken < 5
