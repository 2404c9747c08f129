"""Requests as bytes on a bare connection, for what no client library sends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.world import ServerFixture

ROUTE = "/v1/chat/completions"


@asynccontextmanager
async def connection(world: ServerFixture) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare TCP connection to the server."""
    base = world.client.base_url
    reader, writer = await asyncio.open_connection(base.host, base.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def raw_request(body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A chat request; `length` is what it says of its body's."""
    lines = [
        f"POST {ROUTE} HTTP/1.1",
        "host: test",
        "content-type: application/json",
        f"content-length: {len(body) if length is None else length}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
