"""The Redis or Valkey server in which several of our servers keep what they must agree on.

The library is an extra (`shared`) and loaded only where TESSERA_STATE_URL is set. Its URL may hold a password, so
neither it nor the library's errors get into logs or messages.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr

from server.core.errors import UnavailableError

ANSWER_S = 2.0
"""Time for a connection, and for each answer."""
CONNECTIONS = 32
RETRY_S = 2

_log = logging.getLogger("tessera.state")


class SharedStateError(Exception):
    """The settings for shared state cannot be used; the text says why."""


class SharedState:
    """A connection to the shared state; nothing is sent before the first command.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`.

    Raises:
        SharedStateError: the library is missing, or the URL is none.
    """

    def __init__(self, url: SecretStr) -> None:
        try:
            from redis.asyncio import BlockingConnectionPool, Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError
        except ImportError as error:
            raise SharedStateError(
                "state_url needs the extra 'shared': pip install 'tessera-serve[shared]'."
            ) from error
        try:
            pool = BlockingConnectionPool.from_url(
                url.get_secret_value(),
                max_connections=CONNECTIONS,  # further commands wait for one
                timeout=ANSWER_S,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=ANSWER_S,
                retry=Retry(NoBackoff(), 1),  # for connections that were lost while they were idle
            )
        except ValueError as error:
            raise SharedStateError("state_url is no URL of Redis or Valkey (redis://, rediss://, unix://).") from error
        self.redis: Redis = Redis.from_pool(pool)
        self._faults = (RedisError, OSError, TimeoutError)
        self._is_away = False

    async def close(self) -> None:
        """Close the connections."""
        await self.redis.aclose()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise the library's errors in the block as API errors; log the first and the last of an outage.

        Raises:
            UnavailableError: the shared state did not answer, or refused.
        """
        try:
            yield
        except self._faults as error:
            if not self._is_away:
                self._is_away = True
                _log.error("the shared state (state_url) does not answer: %s", type(error).__name__)
            raise UnavailableError(
                "The state that this server shares with others cannot be reached (state_url).",
                code="state_unavailable",
                retry_after_s=RETRY_S,
            ) from None
        if self._is_away:
            self._is_away = False
            _log.info("the shared state answers again")
