"""API keys: names, hashes and limits, from the settings and from a key file that is reloaded when it changes.

Only SHA-256 hashes are stored. A slow hash protects keys that can be guessed; these are long random strings, which
cannot, and every request is checked against them.

A key file is TOML:

    [[key]]
    name = "alice"
    sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    requests_per_minute = 60     # each limit is optional
    tokens_per_minute = 100000
    concurrent_requests = 4
"""

import hashlib
import hmac
import logging
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

CHECK_INTERVAL_S = 1.0
"""Minimum time between two checks of the file."""

_log = logging.getLogger("tessera.keys")
_Limit = Annotated[int, Field(ge=1)] | None


class KeyFileError(Exception):
    """The key file cannot be read or is invalid; the text says why."""


class Key(BaseModel):
    """An API key's hash, name and limits."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    """Identifies the key in logs, metrics and messages."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Hex digest of the key."""
    requests_per_minute: _Limit = None
    tokens_per_minute: _Limit = None
    """Tokens of prompts and answers together."""
    concurrent_requests: _Limit = None
    """Requests in progress at the same time."""
    owner: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    """The owner of files and caches, if that is not the name: a name that somebody else gets needs a new owner."""

    @property
    def tenant(self) -> str:
        """The owner of files and caches: the name, so that a key can be replaced under the same name."""
        return self.owner or self.name


class _SettingsKey(Key):
    """A key from the settings; its name is only its position there."""

    @property
    def tenant(self) -> str:
        """The owner of files and caches: the key itself, whatever its position."""
        return self.sha256[:32]


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    key: Annotated[list[Key], Field(min_length=1)]


class KeyRing:
    """The currently valid keys.

    Args:
        plain: keys from the settings; they are named `key-1`, `key-2`, … in order.
        file: a key file, reloaded when it changes; None: there is none.
        clock: in seconds.

    Raises:
        KeyFileError: the file cannot be read or is invalid. If that happens at a reload, it is logged and the keys stay
            as they were.
    """

    def __init__(
        self, plain: Sequence[str], file: Path | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fixed: list[Key] = [_SettingsKey(name=f"key-{i}", sha256=hash_key(key)) for i, key in enumerate(plain, 1)]
        self._file = None if file is None else file.expanduser()
        self._clock = clock
        self._version = _file_version(self._file)
        self._checked_at_s = clock()
        self._keys = self._read()

    def __bool__(self) -> bool:
        """Whether there are keys; without any, no key is required."""
        return bool(self._keys)

    @property
    def all(self) -> Sequence[Key]:
        """Every key there is."""
        return self._keys

    def find(self, key: str) -> Key | None:
        """The entry of a key that a client sent; None if it is not valid."""
        self._reload()
        digest = hash_key(key)
        # All are compared, so the time reveals neither which one matched nor how much of it.
        matches = [known for known in self._keys if hmac.compare_digest(digest, known.sha256)]
        return matches[0] if matches else None

    def _reload(self) -> None:
        """Read the file again if it has changed."""
        now_s = self._clock()
        if self._file is None or now_s - self._checked_at_s < CHECK_INTERVAL_S:
            return
        self._checked_at_s = now_s
        version = _file_version(self._file)
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = self._read()
        except KeyFileError as error:
            _log.error("ignoring the changed key file, the previous keys stay valid: %s", error)
        else:
            _log.info("reloaded the changed key file: %d keys", len(self._keys))

    def _read(self) -> list[Key]:
        keys = self._fixed + ([] if self._file is None else _read_file(self._file))
        for field in ("name", "sha256"):
            values = [getattr(key, field) for key in keys]
            if len(set(values)) != len(values):
                raise KeyFileError(f"Two API keys have the same {field}.")
        return keys


def hash_key(key: str) -> str:
    """Hex SHA-256 of a key, as `printf %s KEY | sha256sum` prints it."""
    return hashlib.sha256(key.encode()).hexdigest()


def _read_file(file: Path) -> list[Key]:
    try:
        return _KeyFile.model_validate(tomllib.loads(file.read_text("utf-8"))).key
    except OSError as error:
        raise KeyFileError(f"The key file cannot be read: {error.strerror or error}.") from error
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        location = ".".join(map(str, fault["loc"]))
        raise KeyFileError(f"The key file is invalid at {location}: {fault['msg']}.") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise KeyFileError(f"The key file is not TOML: {error}.") from error


def _file_version(file: Path | None) -> tuple[int, int, int] | None:
    """A value that changes whenever the file does; None if there is no file."""
    if file is None:
        return None
    try:
        status = file.stat()
    except OSError:
        return None  # reading it will report the error
    return status.st_mtime_ns, status.st_size, status.st_ino
