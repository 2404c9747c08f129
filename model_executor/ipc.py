"""What the HTTP process and the engine host say to each other, and how it is framed.

One socket pair, both directions: a frame is a 4-byte big-endian length and that many bytes of msgpack. Back-pressure
is per request: the host sends at most WINDOW additions that have not been reported as taken, and lets vLLM merge what
follows, so a slow reader costs memory for its own answer only and never holds up another request.
"""

import asyncio
import socket
from typing import Literal, TypeVar

import msgspec

from model_executor.engine import (
    Delta,
    EngineBusyError,
    EngineError,
    EngineStats,
    Prompt,
    RequestFailedError,
    RequestRefusedError,
    SamplingParams,
)

T = TypeVar("T")

WINDOW = 16
"""Additions to one answer that may be on their way."""
MAX_FRAME_BYTES = 256 << 20


class WireError(Exception):
    """The other side sent something that is not a frame of this protocol."""


class Start(msgspec.Struct, frozen=True, tag="start"):
    """To the host, once and first: load the model and serve."""


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """To the host: start a request."""

    request_id: str
    prompt: Prompt
    limits: SamplingParams
    client: str = ""
    """Whose request it is, as `fair_queue.CLIENT` has it."""


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """To the host: nobody wants this answer any more."""

    request_id: str


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """To the host: so many additions were consumed; as many more may be sent."""

    request_id: str
    num_additions: int


class ReadStats(msgspec.Struct, frozen=True, tag="read_stats"):
    """To the host: answer with `Stats`."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """From the host: requests are welcome."""


class Impossible(msgspec.Struct, frozen=True, tag="impossible"):
    """From the host: no start with these settings and this model can ever succeed."""

    reason: str


class Added(msgspec.Struct, frozen=True, tag="added"):
    """From the host: an answer grew."""

    request_id: str
    delta: Delta


class Failure(msgspec.Struct, frozen=True):
    """An `EngineError` on the wire."""

    kind: Literal["refused", "busy", "failed"]
    message: str
    param: str | None = None
    code: str | None = None

    @classmethod
    def of(cls, error: EngineError) -> "Failure":
        """The failure that stands for `error`."""
        match error:
            case RequestRefusedError():
                return cls("refused", str(error), error.param, error.code)
            case EngineBusyError():
                return cls("busy", str(error))
            case _:
                return cls("failed", str(error))

    def error(self) -> EngineError:
        """The error this stands for."""
        match self.kind:
            case "refused":
                return RequestRefusedError(self.message, self.param, self.code)
            case "busy":
                return EngineBusyError(self.message)
            case "failed":
                return RequestFailedError(self.message)


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """From the host: nothing more comes of this request."""

    request_id: str
    failure: Failure | None = None


class Stats(msgspec.Struct, frozen=True, tag="stats"):
    """From the host: a reading."""

    stats: EngineStats


ToHost = Generate | Abort | Taken | ReadStats
FromHost = Ready | Impossible | Added | Ended | Stats

_encoder = msgspec.msgpack.Encoder()
_to_host = msgspec.msgpack.Decoder(ToHost)
_from_host = msgspec.msgpack.Decoder(FromHost)


def frame(message: Start | ToHost | FromHost) -> bytes:
    """A message as it travels."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "big") + body


def wait_for_start(end: socket.socket) -> bool:
    """Block until the host is told to go.

    Args:
        end: the host's, blocking.

    Returns:
        False if the other side has hung up instead.

    Raises:
        WireError: it said something else.
    """
    expected = frame(Start())
    received = end.recv(len(expected), socket.MSG_WAITALL)
    if received and received != expected:
        raise WireError("the first message is not the word to start")
    return bool(received)


class Channel:
    """One end of the socket pair. Made by `open`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """See `open`."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> "Channel":
        """Take over one end of a socket pair."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    async def receive_from_host(self) -> FromHost | None:
        """The next message, or None once the host is gone.

        Raises:
            WireError: not a message.
        """
        body = await self._receive()
        return None if body is None else _decode(_from_host, body)

    async def receive_to_host(self) -> ToHost | None:
        """The next message, or None once the HTTP process is gone.

        Raises:
            WireError: not a message.
        """
        body = await self._receive()
        return None if body is None else _decode(_to_host, body)

    def send_soon(self, message: Start | ToHost | FromHost) -> None:
        """Queue a message without waiting; dropped if the other side is gone, which the receiving end notices."""
        if not self._writer.is_closing():
            self._writer.write(frame(message))

    async def send(self, message: ToHost | FromHost) -> None:
        """Send a message, waiting while the socket is full; as `send_soon` if the other side is gone."""
        self.send_soon(message)
        try:
            await self._writer.drain()
        except ConnectionError:
            return  # the receiving end reports the loss

    def close(self) -> None:
        """Hang up; may be called more than once."""
        self._writer.close()

    async def _receive(self) -> bytes | None:
        try:
            num_bytes = int.from_bytes(await self._reader.readexactly(4), "big")
            if num_bytes > MAX_FRAME_BYTES:
                raise WireError(f"a frame of {num_bytes} bytes is announced")
            return await self._reader.readexactly(num_bytes)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None


def _decode(decoder: msgspec.msgpack.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise WireError(f"a message cannot be understood: {error}") from error
