"""CORS middleware: lets web pages of allowed origins read responses, including errors.

Preflight requests are answered here, before authentication: browsers send no key with them.
"""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from server.core.errors import BadRequestError

EXPOSED_HEADERS = (
    "x-request-id",
    "request-id",
    "x-tessera-ignored",
    "openai-processing-ms",
    "retry-after",
    "x-should-retry",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "x-tessera-server",
)
"""Our response headers that pages may read; browsers expose the common ones anyway."""


class CorsMiddleware(CORSMiddleware):
    """Starlette's middleware, configured for this API: keys are sent in a header, there are no cookies.

    Args:
        app: the application inside.
        origins: allowed origins, such as `https://example.org`; `*` allows all.
    """

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=EXPOSED_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """The response to a preflight request; a rejection has the API's error body."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        error = BadRequestError(
            f"{bytes(response.body).decode()}: allowed origins are set by the server's operator (cors_origins).",
            code="cors_refused",
        )
        return JSONResponse(error.body(), error.status, headers)
