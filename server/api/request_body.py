"""A request's body: limited while it arrives, decoded strictly, validated.

What it does not: authorize (that comes first, `server/middleware/authentication.py`, so that no stranger's body is
read).
"""

from dataclasses import dataclass
from email.message import Message
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

from server.api.validation import refusal
from server.core.errors import BadRequestError, TooLargeError
from server.files.store import FileStore
from server.prompt.messages import Context, StoredFile

Model = TypeVar("Model", bound=BaseModel)


UPLOAD_PATH = "/v1/files"
FORM_BYTES = 64 << 10
"""What a form may have around its file."""


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
        self._app = app
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

        async def counted() -> Event:
            nonlocal num_bytes
            event = await receive()
            num_bytes += len(event.get("body", b""))
            if num_bytes > limit.max_bytes:
                raise TooLargeError(limit.message, code="body_too_large")
            return event

        await self._app(scope, counted, send)


async def read_json(request: Request, model: type[Model]) -> Model:
    """The body of `request` as a `model`.

    Raises:
        BadRequestError: not JSON by its content type or its content, not an object, or not valid for the model.
        NotFoundError: it names an uploaded file the client does not have.
        TooLargeError: over the limit.
    """
    _require_json(request.headers)
    body = await request.body()
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequestError(f"The request body is not valid JSON: {error}.", code="invalid_json") from error
    if not isinstance(value, dict):
        raise BadRequestError("The request body must be a JSON object.", code="invalid_json")
    try:
        return model.model_validate(value, context=_context(request))
    except ValidationError as error:
        raise refusal(error) from error


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
