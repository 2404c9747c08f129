"""The one checker of the one error body."""

from pathlib import Path
from typing import Any

import httpx

TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    431: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
    504: "timeout_error",
    507: "server_error",
}
MAX_MESSAGE_CHARS = 2_000
LEAKS = ("Traceback", "site-packages", str(Path(__file__).parents[2]), "/dev/shm", ".py", " at 0x")


def check_error_body(body: Any, status: int, *, param: str | None = None, code: str | None = None) -> str:
    """Assert that a body is the error body of `status`; returns its message."""
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == TYPES[status]
    assert (error["param"], error["code"]) == (param, code)
    message = error["message"]
    assert isinstance(message, str) and 0 < len(message) <= MAX_MESSAGE_CHARS
    assert not [leak for leak in LEAKS if leak in message]
    return message


def check_error(response: httpx.Response, status: int, *, param: str | None = None, code: str | None = None) -> str:
    """Assert that a response is an error of the API, headers included; returns its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    if status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    assert (status in (504, 507)) == ("x-should-retry" in response.headers)
    assert (status == 401) == ("www-authenticate" in response.headers)
    assert (status == 405) == ("allow" in response.headers)
    return check_error_body(response.json(), status, param=param, code=code)
