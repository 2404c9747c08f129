"""Authentication middleware: checks the key before the body is read, and sets the tenant.

A key comes as `Authorization: Bearer KEY` or, as clients of the Messages API send it, as `x-api-key: KEY`.
"""

import hmac
from collections.abc import Collection
from ipaddress import ip_interface

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from model_executor.fair_queue import CLIENT
from server.auth.api_keys import Key, KeyRing, hash_key
from server.core.errors import AuthenticationError

METRICS_PATH = "/metrics"


class AuthenticationMiddleware:
    """Middleware that accepts requests with a valid key only.

    Sets `scope["state"]["key"]` and `scope["state"]["tenant"]`. Where no key is required, the tenant is the empty
    string and there is no key. Also sets `fair_queue.CLIENT` to the tenant, or to the address if no key is required.

    Args:
        app: the application inside.
        keys: the valid keys; if there are none, no key is required.
        open_paths: paths that require no key.
        metrics_key: the only key for `/metrics`, and for nothing else; None where all keys open it.
    """

    def __init__(
        self, app: ASGIApp, *, keys: KeyRing, open_paths: Collection[str], metrics_key: str | None = None
    ) -> None:
        self._metrics_digest = None if metrics_key is None else hash_key(metrics_key)
        self._app = app
        self._keys = keys
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            AuthenticationError: no key, or an invalid one.
        """
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            state["tenant"] = ""
            if self._metrics_digest is not None and scope["path"] == METRICS_PATH:
                if not hmac.compare_digest(hash_key(_sent(Headers(scope=scope))), self._metrics_digest):
                    raise AuthenticationError("The API key is not the one for metrics.")
            elif self._keys and scope["path"] not in self._open_paths:
                state["key"] = key = self._key(Headers(scope=scope))
                state["tenant"] = key.tenant
            CLIENT.set(state["tenant"] or _network(scope))
        await self._app(scope, receive, send)

    def _key(self, headers: Headers) -> Key:
        key = self._keys.find(_sent(headers))
        if key is None:
            raise AuthenticationError("The API key is not valid.")
        return key


def _sent(headers: Headers) -> str:
    """The key that was sent.

    Raises:
        AuthenticationError: none was.
    """
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    sent = (bearer if scheme.lower() == "bearer" else "").strip() or headers.get("x-api-key", "").strip()
    if not sent:
        raise AuthenticationError("An API key is needed: send the header 'Authorization: Bearer KEY'.")
    return sent


def _network(scope: Scope) -> str:
    """The client's address; of IPv6 the half that names its network, as the other half is its own to choose."""
    host, _ = scope.get("client") or ("", 0)
    return str(ip_interface(f"{host}/64").network) if ":" in host and "%" not in host else host
