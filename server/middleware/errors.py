"""Where every error of a request ends: exceptions go in, the one error body comes out."""

import asyncio
import logging
from typing import NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.core.errors import ApiError, BadRequestError, MethodError, NotFoundError, UnavailableError, as_api_error

_log = logging.getLogger("tessera.error")


class ErrorMiddleware:
    """Middleware that answers with the error body whatever is raised inside.

    Args:
        app: the application inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            Exception: what was raised after the answer had begun; the connection must then be closed.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(event: Message) -> None:
            nonlocal begun
            begun = True
            await send(event)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            # Only a server that stops cancels requests out here; it goes on once this answer is out.
            if begun:
                raise
            answer = reported(UnavailableError("The server is stopping."), scope)
        except Exception as error:
            answer = reported(error, scope)
            if begun:
                raise
        else:
            return
        await JSONResponse(answer.body(), answer.status, answer.headers)(scope, receive, send)


def reported(error: Exception, scope: Scope) -> ApiError:
    """The API's form of `error`, left for the metrics; faults of our own are logged under the request's id."""
    answer = as_api_error(error)
    scope["state"]["error"] = answer
    if answer.status == 500:
        _log.error("request failed", exc_info=error, extra={"fields": {"request_id": scope["state"].get("request_id")}})
    return answer


async def translate_http_exception(request: Request, error: Exception) -> NoReturn:
    """Turn what the framework's router raises into our errors (an exception handler of the application).

    Raises:
        NotFoundError: no such route.
        MethodError: the route has other methods.
        BadRequestError: any other refusal of the framework.
    """
    assert isinstance(error, HTTPException)  # registered for this class only
    route = f"{request.method} {request.url.path[:200]}"
    if error.status_code == 404:
        raise NotFoundError(f"There is no route {route}.", code="unknown_url") from error
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        raise MethodError(f"There is no route {route}; the path takes {allow}.", allow=allow) from error
    raise BadRequestError(str(error.detail)) from error
