"""Body limit: refuses request bodies over a size while they arrive, before anything reads them."""

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.core.errors import TooLargeError

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

        async def counted() -> Message:
            nonlocal num_bytes
            event = await receive()
            num_bytes += len(event.get("body", b""))
            if num_bytes > limit.max_bytes:
                raise TooLargeError(limit.message, code="body_too_large")
            return event

        await self._app(scope, counted, send)
