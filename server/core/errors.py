"""The API's errors: status, type and code of each, the error body, and the translation of other exceptions.

    ApiError                     has a status, a `type`, a `param` and a `code`
    ├── ClientError              4xx: the client is at fault
    │   ├── BadRequestError      400  invalid_request_error
    │   ├── AuthenticationError  401  invalid_api_key
    │   ├── NotFoundError        404
    │   ├── MethodError          405  method_not_allowed
    │   ├── TooLargeError        413
    │   └── RateLimitError       429  rate_limit_exceeded, with Retry-After
    └── ServerError              5xx: the server is at fault, or not available
        ├── InternalError        500  generic text only
        ├── UnavailableError     503  with Retry-After
        ├── DeadlineError        504  with x-should-retry: false
        └── StorageError         507  with x-should-retry: false

`server/middleware/errors.py` turns them into responses; `server/api/sse.py` into events.
"""

import logging
from collections.abc import MutableMapping
from typing import Any, ClassVar

from model_executor.engine import EngineBusyError, EngineUnavailableError, RequestRefusedError
from model_executor.fair_queue import QueueFullError

MAX_MESSAGE_CHARS = 2_000

_log = logging.getLogger("tessera.error")


class ApiError(Exception):
    """An error with an OpenAI body.

    Args:
        message: what is wrong, for people; no paths, addresses or tracebacks. Cut at 2 000 characters.
        param: the request field at fault, such as `messages[2].content[0].image_url`.
        code: a machine-readable code, OpenAI's own where it has one. None: the class's default.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message if len(message) <= MAX_MESSAGE_CHARS else message[: MAX_MESSAGE_CHARS - 1] + "…"
        self.param = param
        self.code = code or self.default_code

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response, in addition to the request id."""
        return {}

    def body(self) -> dict[str, Any]:
        """The OpenAI error body; it always has all four keys."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class ClientError(ApiError):
    """The client is at fault."""

    status = 400
    type = "invalid_request_error"


class BadRequestError(ClientError):
    """The request is malformed, out of range, or has media that cannot be used."""


class AuthenticationError(ClientError):
    """No key, or an invalid one."""

    status = 401
    default_code = "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        """The challenge that RFC 9110 requires."""
        return {"WWW-Authenticate": "Bearer"}


class NotFoundError(ClientError):
    """No such route, model or object."""

    status = 404


class MethodError(ClientError):
    """The path does not support the method.

    Args:
        message: what is wrong.
        allow: the supported methods, as in the `Allow` header.
    """

    status = 405
    default_code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow

    @property
    def headers(self) -> dict[str, str]:
        """The supported methods."""
        return {"Allow": self.allow}


class TooLargeError(ClientError):
    """The request body, a file or the files of a key exceed a limit."""

    status = 413


class RateLimitError(ClientError):
    """Too many requests at the moment.

    Args:
        message: what is wrong.
        retry_after_s: when to try again.
    """

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """When to try again."""
        return {"Retry-After": str(self.retry_after_s)}


class ServerError(ApiError):
    """The server is at fault, or not available."""


class InternalError(ServerError):
    """An unexpected exception; its text is in the log only."""

    def __init__(self) -> None:
        super().__init__("The server encountered an internal error; its log has the details under the request id.")


class UnavailableError(ServerError):
    """The model is loading or being restarted, or the uploaded files are in use by another server.

    Args:
        message: what is wrong.
        retry_after_s: when to try again.
        code: for anything other than the engine.
    """

    status = 503
    type = "service_unavailable_error"
    default_code = "engine_unavailable"

    def __init__(self, message: str, *, retry_after_s: int = 2, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """When to try again."""
        return {"Retry-After": str(self.retry_after_s)}


class DeadlineError(ServerError):
    """Preparing media took too long; the SDKs must not retry it automatically."""

    status = 504
    type = "timeout_error"
    default_code = "media_deadline_exceeded"

    @property
    def headers(self) -> dict[str, str]:
        """Read by the official SDKs."""
        return {"x-should-retry": "false"}


class StorageError(ServerError):
    """The server cannot store a file; the SDKs must not retry it automatically."""

    status = 507
    default_code = "storage_full"

    @property
    def headers(self) -> dict[str, str]:
        """Read by the official SDKs."""
        return {"x-should-retry": "false"}


def as_api_error(error: Exception) -> ApiError:
    """The API error for any exception: itself, the equivalent of an engine error, or a plain 500."""
    match error:
        case ApiError():
            return error
        case EngineUnavailableError():
            return UnavailableError(f"The model is not available at the moment ({error.state}): {error}.")
        case EngineBusyError():
            return RateLimitError(f"The server is busy: {error}.")
        case QueueFullError():
            return RateLimitError("The server is busy: as many requests wait as may.")
        case RequestRefusedError():
            return BadRequestError(str(error), param=error.param, code=error.code)
        case _:
            return InternalError()


def report_error(error: Exception, scope: MutableMapping[str, Any]) -> ApiError:
    """The API error for an exception; records it for the metrics and logs internal errors.

    Args:
        error: raised while the request was handled.
        scope: the request's ASGI scope.
    """
    api_error = as_api_error(error)
    scope["state"]["error"] = api_error
    if api_error.status == 500:
        _log.error("request failed", exc_info=error, extra={"fields": {"request_id": scope["state"].get("request_id")}})
    return api_error
