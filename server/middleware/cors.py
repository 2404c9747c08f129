"""Which web pages may read the answers: CORS, outside the error boundary so that errors can be read as well.

Preflights are answered here, before keys are asked for: a browser sends none with them.
"""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from server.core.errors import BadRequestError

EXPOSED_HEADERS = (
    "x-request-id",
    "retry-after",
    "x-should-retry",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
)
"""Headers of ours that pages may read; the others are readable anyway or mean nothing to them."""


class CorsMiddleware(CORSMiddleware):
    """Starlette's middleware as this API needs it: keys travel in a header, cookies do not exist.

    Args:
        app: the application inside.
        origins: whose pages may ask, such as `https://example.org`; `*` for everybody's.
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
        """The answer to a preflight; a refusal has the one error body."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        error = BadRequestError(
            f"{bytes(response.body).decode()}: the server's operator names the origins that may ask (cors_origins).",
            code="cors_refused",
        )
        return JSONResponse(error.body(), error.status, headers)
