"""Error middleware: turns exceptions into responses with the error bodies of the API the route belongs to."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.core.errors import (
    ApiError,
    BadRequestError,
    MethodError,
    NotFoundError,
    UnavailableError,
    report_error,
)


class ErrorMiddleware:
    """Middleware that answers with the error body when an exception is raised inside.

    Args:
        app: the application inside.
        bodies: makes the body of errors at a path and below it, where that is another than OpenAI's.
    """

    def __init__(self, app: ASGIApp, *, bodies: Mapping[str, Callable[[ApiError], dict[str, Any]]]) -> None:
        self._app = app
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            Exception: was raised after the response had started; the connection must then be closed.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def send_and_note(event: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(event)

        try:
            await self._app(scope, receive, send_and_note)
        except asyncio.CancelledError:
            # Out here, requests are canceled only by a server that is stopping; it waits for this response.
            if has_started:
                raise
            api_error = report_error(UnavailableError("The server is stopping."), scope)
        except Exception as error:
            api_error = report_error(error, scope)
            if has_started:
                raise
        else:
            return
        body = self._body(api_error, scope["path"])
        await JSONResponse(body, api_error.status, api_error.headers)(scope, receive, send)

    def _body(self, error: ApiError, path: str) -> dict[str, Any]:
        for base, make in self._bodies.items():
            if path == base or path.startswith(f"{base}/"):
                return make(error)
        return error.body()


async def translate_http_exception(request: Request, error: Exception) -> NoReturn:
    """Turn an exception of the framework's router into an API error (an exception handler of the application).

    Raises:
        NotFoundError: no such route.
        MethodError: the path does not support the method.
        BadRequestError: the framework rejects the request for another reason.
    """
    assert isinstance(error, HTTPException)  # registered for this class only
    path = request.url.path[:200]
    if error.status_code == 404:
        raise NotFoundError(f"There is no route {request.method} {path}.", code="unknown_url") from error
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        raise MethodError(f"Method {request.method} is not allowed for {path}; use {allow}.", allow=allow) from error
    raise BadRequestError(str(error.detail), code="invalid_request") from error
