"""A request's body: limited while it arrives, decoded strictly, validated.

What it does not: authorise (that comes first, `server/middleware/authentication.py`, so that no stranger's body is
read).
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from email.message import Message
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

from model_executor.fair_queue import CLIENT, FairQueue
from server.api.validation import refusal
from server.core.concurrency import run_to_completion
from server.core.errors import BadRequestError, RateLimitError, TooLargeError
from server.files.store import FileStore
from server.prompt.messages import Context, StoredFile

Model = TypeVar("Model", bound=BaseModel)


UPLOAD_PATH = "/v1/files"
FORM_BYTES = 64 << 10
"""What a form may have around its file."""
MAX_BODIES = 4
"""Bodies of the largest size that may be in memory at a time, or as much in smaller ones."""
LARGE_BODY_BYTES = 100_000
"""From here on a body is read in its turn, in a thread, and what it holds is counted first."""
MAX_MARKS = 150_000
"""Values in one body, roughly; parsing so many takes about 50 ms."""
NUM_LARGE_BODIES = 2
"""Large bodies parsed at a time, of one client one."""
MAX_WAITING_BODIES = 64
_SLICE_BYTES = 1 << 20


class Arrivals:
    """The memory that bodies take while they arrive and are read, bounded for all together.

    Args:
        max_bytes: a client may have as much as its equal share of that, and more only while there is room.
    """

    def __init__(self, max_bytes: int) -> None:
        """See the class."""
        self._max_bytes = max_bytes
        self._num_bytes: Counter[str] = Counter()

    @property
    def num_bytes(self) -> int:
        """Bytes of all bodies."""
        return self._num_bytes.total()

    def add(self, client: str, num_bytes: int) -> None:
        """Count bytes of a client that have come.

        Raises:
            RateLimitError: there is no room for them, and the client has its share.
        """
        own = self._num_bytes[client] + num_bytes
        share = self._max_bytes / len(self._num_bytes.keys() | {client})
        if own > share and self.num_bytes + num_bytes > self._max_bytes:
            raise RateLimitError("The server is busy with the bodies of other requests.")
        self._num_bytes[client] = own

    def remove(self, client: str, num_bytes: int) -> None:
        """Stop counting them."""
        self._num_bytes[client] -= num_bytes
        if not self._num_bytes[client]:
            del self._num_bytes[client]


class _Arrival:
    """The body of one request in `Arrivals`."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._client = CLIENT.get()
        self._num_bytes = 0

    def add(self, num_bytes: int) -> None:
        self._arrivals.add(self._client, num_bytes)
        self._num_bytes += num_bytes

    def end(self) -> None:
        self._arrivals.remove(self._client, self._num_bytes)
        self._num_bytes = 0


@dataclass(frozen=True, slots=True)
class _Limit:
    max_bytes: int
    message: str


class BodyLimitMiddleware:
    """Middleware that refuses bodies over a size: at once where the size is declared, else on the byte too many.

    Args:
        app: the application inside.
        max_bytes: the largest body let through.
        max_upload_bytes: the largest file, on the route that takes files.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_upload_bytes: int) -> None:
        """See the class."""
        self._app = app
        self._arrivals = Arrivals(MAX_BODIES * max_bytes)
        self._json = _Limit(max_bytes, f"The request body is over the limit of {max_bytes} bytes (max_body_bytes).")
        self._upload = _Limit(
            max_upload_bytes + FORM_BYTES,
            f"The request body cannot hold a file within the limit of {max_upload_bytes} bytes (files.max_file_bytes).",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            TooLargeError: the body is over the limit.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._upload if scope["path"] == UPLOAD_PATH else self._json
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit.max_bytes:
            raise TooLargeError(limit.message, code="body_too_large")
        num_bytes = 0
        arrival = scope.setdefault("state", {})["arrival"] = _Arrival(self._arrivals)

        async def counted() -> Event:
            nonlocal num_bytes
            event = await receive()
            num_new_bytes = len(event.get("body", b""))
            num_bytes += num_new_bytes
            if num_bytes > limit.max_bytes:
                raise TooLargeError(limit.message, code="body_too_large")
            if limit is self._json:  # a file goes to the disk as it comes
                arrival.add(num_new_bytes)
            return event

        try:
            await self._app(scope, counted, send)
        finally:
            arrival.end()


async def read_json(request: Request, model: type[Model]) -> Model:
    """The body of `request` as a `model`.

    Raises:
        BadRequestError: not JSON by its content type or its content, not an object, or not valid for the model.
        NotFoundError: it names an uploaded file the client does not have.
        TooLargeError: over the limit.
    """
    _require_json(request.headers)
    body = bytearray()  # Starlette would keep it for as long as the answer takes
    async for chunk in request.stream():
        body += chunk
    try:
        if len(body) < LARGE_BODY_BYTES:
            return _validated(body, model, _context(request))
        large_bodies: FairQueue = request.app.state.large_bodies
        async with large_bodies.place():
            await _require_few_values(body)
            return await run_to_completion(lambda: _validated(body, model, _context(request)))
    finally:
        body.clear()
        if (arrival := getattr(request.state, "arrival", None)) is not None:
            arrival.end()


def _validated(body: bytearray, model: type[Model], context: Context) -> Model:
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequestError(f"The request body is not valid JSON: {error}.", code="invalid_json") from error
    if not isinstance(value, dict):
        raise BadRequestError("The request body must be a JSON object.", code="invalid_json")
    try:
        return model.model_validate(value, context=context)
    except ValidationError as error:
        raise refusal(error) from error


async def _require_few_values(body: bytearray) -> None:
    """Refuse what takes seconds to parse: every value of JSON has one of four characters beside it.

    They are counted in texts, too, but no context takes a text that has so many. In slices, between which others run.
    """
    num_marks = 0
    for start in range(0, len(body), _SLICE_BYTES):
        part = body[start : start + _SLICE_BYTES]
        num_marks += len(part) - len(part.translate(None, b",:[{"))
        if num_marks > MAX_MARKS:
            raise TooLargeError(
                f"The request body has too many values: more than {MAX_MARKS} commas, colons, brackets and braces.",
                code="body_too_large",
            )
        await asyncio.sleep(0)


def _context(request: Request) -> Context:
    files: FileStore = request.app.state.files
    tenant: str = request.state.tenant

    def find_file(file_id: str) -> StoredFile | None:
        record = files.get(file_id, tenant)
        return None if record is None else StoredFile(str(files.path(record, tenant)), record.modality)

    return Context(find_file=find_file)


def _require_json(headers: Headers) -> None:
    declared = Message()
    declared["content-type"] = headers.get("content-type", "")
    if declared.get_content_type() != "application/json" or "content-type" not in headers:
        raise BadRequestError("The content type must be application/json.", code="invalid_content_type")
    charset = declared.get_content_charset("utf-8")
    if charset not in ("utf-8", "us-ascii"):
        raise BadRequestError("The charset of the content must be utf-8.", code="invalid_content_type")
    if headers.get("content-encoding", "identity") != "identity":
        raise BadRequestError("Compressed request bodies are not taken.", code="invalid_content_encoding")
