"""Every error the API answers, and the one body they share.

    ApiError                     has a status, a `type`, a `param` and a `code`
    ├── ClientError              4xx: the request is at fault
    │   ├── BadRequestError      400  invalid_request_error
    │   ├── AuthenticationError  401  invalid_api_key
    │   ├── NotFoundError        404
    │   ├── MethodError          405
    │   ├── TooLargeError        413
    │   └── RateLimitError       429  rate_limit_exceeded, with Retry-After
    └── ServerError              5xx: we are at fault, or busy
        ├── InternalError        500  generic text only
        ├── UnavailableError     503  with Retry-After
        ├── DeadlineError        504  with x-should-retry: false
        └── StorageError         507  with x-should-retry: false

`server/middleware/errors.py` turns them into responses; `server/api/sse.py` into events.
"""

from typing import Any, ClassVar

from model_executor.engine import EngineBusyError, EngineUnavailableError, RequestRefusedError
from model_executor.fair_queue import QueueFullError

MAX_MESSAGE_CHARS = 2_000


class ApiError(Exception):
    """An error with an OpenAI body.

    Args:
        message: the fact, for people; no paths, addresses or tracebacks. Cut at 2 000 characters.
        param: the request field at fault, such as `messages[2].content[0].image_url`.
        code: a machine-readable code; the class's own where not given.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        """See the class."""
        super().__init__(message)
        self.message = message if len(message) <= MAX_MESSAGE_CHARS else message[: MAX_MESSAGE_CHARS - 1] + "…"
        self.param = param
        self.code = code or self.default_code

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to the answer, besides the request id."""
        return {}

    def body(self) -> dict[str, Any]:
        """The OpenAI error body; all four keys are always there."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class ClientError(ApiError):
    """The request is at fault."""

    status = 400
    type = "invalid_request_error"


class BadRequestError(ClientError):
    """The request is malformed, out of range, or brings media that cannot be used."""


class AuthenticationError(ClientError):
    """No key, or a wrong one."""

    status = 401
    default_code = "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        """The challenge RFC 9110 asks for."""
        return {"WWW-Authenticate": "Bearer"}


class NotFoundError(ClientError):
    """No such route, model or object."""

    status = 404


class MethodError(ClientError):
    """The route exists, the method does not.

    Args:
        message: the fact.
        allow: the methods there are, as in the `Allow` header.
    """

    status = 405

    def __init__(self, message: str, *, allow: str) -> None:
        """See the class."""
        super().__init__(message)
        self.allow = allow

    @property
    def headers(self) -> dict[str, str]:
        """The methods there are."""
        return {"Allow": self.allow}


class TooLargeError(ClientError):
    """The body is over the limit."""

    status = 413


class RateLimitError(ClientError):
    """Too many requests at the moment.

    Args:
        message: the fact.
        retry_after_s: when to come back.
    """

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        """See the class."""
        super().__init__(message)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """When to come back."""
        return {"Retry-After": str(self.retry_after_s)}


class ServerError(ApiError):
    """We are at fault, or busy."""


class InternalError(ServerError):
    """A fault of our own; the text tells nothing, the log tells everything."""

    def __init__(self) -> None:
        """The text is always the same."""
        super().__init__("The server met an unexpected condition; its log has the request id.")


class UnavailableError(ServerError):
    """The model is loading or being restarted, or the uploaded files are held by another server.

    Args:
        message: the fact.
        retry_after_s: when to come back.
        code: what is not available, where that is not the engine.
    """

    status = 503
    type = "service_unavailable_error"
    default_code = "engine_unavailable"

    def __init__(self, message: str, *, retry_after_s: int = 2, code: str | None = None) -> None:
        """See the class."""
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """When to come back."""
        return {"Retry-After": str(self.retry_after_s)}


class DeadlineError(ServerError):
    """Media took longer than its deadline; the SDKs must not upload it again by themselves."""

    status = 504
    type = "timeout_error"
    default_code = "media_deadline_exceeded"

    @property
    def headers(self) -> dict[str, str]:
        """Read by the official SDKs."""
        return {"x-should-retry": "false"}


class StorageError(ServerError):
    """The server has no room for a file; sending it again at once does not help."""

    status = 507
    default_code = "storage_full"

    @property
    def headers(self) -> dict[str, str]:
        """Read by the official SDKs."""
        return {"x-should-retry": "false"}


def as_api_error(error: Exception) -> ApiError:
    """What the API answers for `error`: itself, the engine's errors by their kind, and a plain 500 for the rest."""
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
