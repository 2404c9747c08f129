"""Messages between the HTTP process and the engine process, and their framing on a socket pair.

A frame is a 4-byte big-endian length and that many bytes of msgpack, in both directions. Back-pressure is per request:
the engine process sends at most WINDOW deltas that have not been acknowledged, and lets vLLM merge the following ones,
so a slow reader costs memory for its own answer only and never blocks another request.
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
"""Deltas of one answer that may be sent without acknowledgment."""
MAX_FRAME_BYTES = 256 << 20
_LENGTH_BYTES = 4


class ProtocolError(Exception):
    """The peer sent something that is not a frame or a message of this protocol."""


class Start(msgspec.Struct, frozen=True, tag="start"):
    """To the engine process, once and first: load the model and serve."""

    devices: str = ""
    """The GPUs to use, as CUDA_VISIBLE_DEVICES; empty: those of the environment."""


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """To the engine process: start a request."""

    request_id: str
    prompt: Prompt
    params: SamplingParams
    client: str = ""
    """The client of the request, from `fair_queue.CLIENT`."""


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """To the engine process: stop generating this answer."""

    request_id: str


class Acknowledge(msgspec.Struct, frozen=True, tag="acknowledge"):
    """To the engine process: this many deltas were consumed, so as many more may be sent."""

    request_id: str
    num_deltas: int


class ReadStats(msgspec.Struct, frozen=True, tag="read_stats"):
    """To the engine process: reply with `Stats`."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """From the engine process: the model is loaded and accepts requests."""


class Impossible(msgspec.Struct, frozen=True, tag="impossible"):
    """From the engine process: no start with these settings and this model can ever succeed."""

    reason: str


class Unready(msgspec.Struct, frozen=True, tag="unready"):
    """From the engine process: this start failed; another one may succeed."""

    reason: str


class Generated(msgspec.Struct, frozen=True, tag="generated"):
    """From the engine process: the next part of an answer."""

    request_id: str
    delta: Delta


class Failure(msgspec.Struct, frozen=True):
    """An `EngineError` as a message field."""

    kind: Literal["refused", "busy", "failed"]
    message: str
    param: str | None = None
    code: str | None = None

    @classmethod
    def of(cls, error: EngineError) -> "Failure":
        """The failure that represents `error`."""
        match error:
            case RequestRefusedError():
                return cls("refused", str(error), error.param, error.code)
            case EngineBusyError():
                return cls("busy", str(error))
            case _:
                return cls("failed", str(error))

    def error(self) -> EngineError:
        """The error this represents."""
        match self.kind:
            case "refused":
                return RequestRefusedError(self.message, self.param, self.code)
            case "busy":
                return EngineBusyError(self.message)
            case "failed":
                return RequestFailedError(self.message)


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """From the engine process: the answer is complete, or the request has failed."""

    request_id: str
    failure: Failure | None = None


class Stats(msgspec.Struct, frozen=True, tag="stats"):
    """From the engine process: current statistics."""

    stats: EngineStats


ToEngine = Generate | Abort | Acknowledge | ReadStats
FromEngine = Ready | Impossible | Unready | Generated | Ended | Stats

_encoder = msgspec.msgpack.Encoder()
_start = msgspec.msgpack.Decoder(Start)
_to_engine = msgspec.msgpack.Decoder(ToEngine)
_from_engine = msgspec.msgpack.Decoder(FromEngine)


def frame(body: bytes) -> bytes:
    """`body` with its length in front."""
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def encode(message: Start | ToEngine | FromEngine) -> bytes:
    """A message as a frame."""
    return frame(_encoder.encode(message))


def receive_frame(end: socket.socket) -> bytes:
    """Block until one frame has arrived; returns its body.

    Args:
        end: a blocking socket.

    Raises:
        ConnectionError: the peer has closed its end.
        ProtocolError: the frame is too large.
    """
    return _receive_exactly(end, _body_bytes(_receive_exactly(end, _LENGTH_BYTES)))


def wait_for_start(end: socket.socket) -> Start | None:
    """Block until the engine process may load the model.

    Args:
        end: the engine process's end, blocking.

    Returns:
        The message, or None if the peer has closed its end instead.

    Raises:
        ProtocolError: it sent another message.
    """
    try:
        return _decode(_start, receive_frame(end))
    except ConnectionError:
        return None


class Channel:
    """One end of the socket pair. Made by `open`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> "Channel":
        """Take over one end of a socket pair."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    async def receive_from_engine(self) -> FromEngine | None:
        """The next message, or None once the engine process is gone.

        Raises:
            ProtocolError: not a message.
        """
        body = await self._receive()
        return None if body is None else _decode(_from_engine, body)

    async def receive_to_engine(self) -> ToEngine | None:
        """The next message, or None once the HTTP process is gone.

        Raises:
            ProtocolError: not a message.
        """
        body = await self._receive()
        return None if body is None else _decode(_to_engine, body)

    def send_soon(self, message: Start | ToEngine | FromEngine) -> None:
        """Queue a message without waiting; dropped if the peer is gone, which the receiving side notices."""
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    async def send(self, message: ToEngine | FromEngine) -> None:
        """Send a message, waiting while the socket is full; as `send_soon` if the peer is gone."""
        self.send_soon(message)
        try:
            await self._writer.drain()
        except ConnectionError:
            return  # the receiving side reports the loss

    def close(self) -> None:
        """Close this end; may be called more than once."""
        self._writer.close()

    async def _receive(self) -> bytes | None:
        try:
            num_bytes = _body_bytes(await self._reader.readexactly(_LENGTH_BYTES))
            return await self._reader.readexactly(num_bytes)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None


def _body_bytes(length: bytes) -> int:
    num_bytes = int.from_bytes(length, "big")
    if num_bytes > MAX_FRAME_BYTES:
        raise ProtocolError(f"a frame of {num_bytes} bytes is larger than {MAX_FRAME_BYTES}")
    return num_bytes


def _receive_exactly(end: socket.socket, num_bytes: int) -> bytes:
    body = bytearray()
    while len(body) < num_bytes:
        if not (piece := end.recv(num_bytes - len(body))):
            raise ConnectionError("the peer has closed its end")
        body += piece
    return bytes(body)


def _decode(decoder: msgspec.msgpack.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"a message cannot be decoded: {error}") from error
