"""Who may ask: a bearer key before anything of the request is looked at, and the tenant it stands for."""

import hashlib
import hmac
from collections.abc import Collection

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import AuthenticationError


class Auth:
    """Middleware that lets a request through when it has one of the keys, and names its tenant.

    `scope["state"]["tenant"]` becomes a stable hash of the key used, or the empty string where no key is needed.
    The keys themselves are not kept.

    Args:
        app: the application inside.
        keys: as `Settings.api_key`: one key, several separated by commas, or None for no check.
        open_paths: paths that need no key.
    """

    def __init__(self, app: ASGIApp, *, keys: SecretStr | None, open_paths: Collection[str]) -> None:
        """See the class."""
        self._app = app
        self._digests = [_digest(key) for key in split_keys(keys)]
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            AuthenticationError: no key, or none of ours.
        """
        if scope["type"] == "http":
            open_to_all = not self._digests or scope["path"] in self._open_paths
            scope.setdefault("state", {})["tenant"] = "" if open_to_all else self._tenant(Headers(scope=scope))
        await self._app(scope, receive, send)

    def _tenant(self, headers: Headers) -> str:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise AuthenticationError("An API key is needed: send the header 'Authorization: Bearer KEY'.")
        digest = _digest(key.strip())
        # All keys are compared, so the time tells neither which one matched nor how much of it.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            raise AuthenticationError("The API key is not valid.")
        return digest.hex()[:32]


def split_keys(keys: SecretStr | None) -> list[str]:
    """The keys of the setting, one by one; empty where none is needed."""
    return [key for key in (part.strip() for part in keys.get_secret_value().split(",")) if key] if keys else []


def _digest(key: str) -> bytes:
    return hashlib.sha256(b"tessera-tenant\0" + key.encode()).digest()
