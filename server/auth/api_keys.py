"""The API keys the server knows: their names, their hashes, their limits; from the settings, or a file that may change.

Only SHA-256 hashes are kept. A slow hash would protect keys that can be guessed; these are long random strings, which
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
"""How often the file is looked at, at most."""

_log = logging.getLogger("tessera.keys")
_Limit = Annotated[int, Field(ge=1)] | None


class KeyFileError(Exception):
    """The key file cannot be read or says something else than keys; the text says what."""


class Key(BaseModel):
    """A key, without itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    """Stands for the key in logs, metrics and messages."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Hex digest of the key."""
    requests_per_minute: _Limit = None
    tokens_per_minute: _Limit = None
    """Tokens of prompts and answers together."""
    concurrent_requests: _Limit = None
    """Requests being answered at the same time."""
    owner: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    """Whose files and caches the key opens, where that is not the name: a name that is given to somebody else gets a
    new owner with it."""

    @property
    def tenant(self) -> str:
        """Whose files and caches the key opens: its name's, so that a key can be replaced under the same name."""
        return self.owner or self.name


class _SettingsKey(Key):
    """A key of the settings, whose name says only where it stands there."""

    @property
    def tenant(self) -> str:
        """Those of the key itself, wherever it stands."""
        return self.sha256[:32]


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    key: Annotated[list[Key], Field(min_length=1)]


class KeyRing:
    """All keys, as they are now.

    Args:
        plain: keys of the settings; they are named `key-1`, `key-2`, … in their order.
        file: a key file, read again when it changes; None for none.
        clock: in seconds.

    Raises:
        KeyFileError: see the class. Later, a faulty file is logged and the keys stay as they were.
    """

    def __init__(
        self, plain: Sequence[str], file: Path | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """See the class."""
        self._fixed: list[Key] = [_SettingsKey(name=f"key-{i}", sha256=hashed(key)) for i, key in enumerate(plain, 1)]
        self._file = None if file is None else file.expanduser()
        self._clock = clock
        self._stamp = _stamp(self._file)
        self._checked_s = clock()
        self._keys = self._read()

    def __bool__(self) -> bool:
        """Whether there is any key, without which everybody may ask."""
        return bool(self._keys)

    @property
    def all(self) -> Sequence[Key]:
        """Every key there is."""
        return self._keys

    def find(self, key: str) -> Key | None:
        """The entry of a key somebody sent, or None."""
        self._renew()
        digest = hashed(key)
        # All are compared, so the time tells neither which one matched nor how much of it.
        matches = [known for known in self._keys if hmac.compare_digest(digest, known.sha256)]
        return matches[0] if matches else None

    def _renew(self) -> None:
        """Read the file again where it has changed."""
        now_s = self._clock()
        if self._file is None or now_s - self._checked_s < CHECK_INTERVAL_S:
            return
        self._checked_s = now_s
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self._read()
        except KeyFileError as error:
            _log.error("the changed key file is not used, the keys stay as they were: %s", error)
        else:
            _log.info("the key file has changed and was read: %d keys", len(self._keys))

    def _read(self) -> list[Key]:
        keys = self._fixed + ([] if self._file is None else _read_file(self._file))
        for field in ("name", "sha256"):
            values = [getattr(key, field) for key in keys]
            if len(set(values)) != len(values):
                raise KeyFileError(f"Two API keys have the same {field}.")
        return keys


def hashed(key: str) -> str:
    """Hex SHA-256 of a key, as `printf %s KEY | sha256sum` tells it."""
    return hashlib.sha256(key.encode()).hexdigest()


def _read_file(file: Path) -> list[Key]:
    try:
        return _KeyFile.model_validate(tomllib.loads(file.read_text("utf-8"))).key
    except OSError as error:
        raise KeyFileError(f"The key file cannot be read: {error.strerror or error}.") from error
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise KeyFileError(f"The key file is wrong at {place}: {fault['msg']}.") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise KeyFileError(f"The key file is not TOML: {error}.") from error


def _stamp(file: Path | None) -> tuple[int, int, int] | None:
    """Changes whenever the file does; None where there is none."""
    if file is None:
        return None
    try:
        state = file.stat()
    except OSError:
        return None  # reading it will say why
    return state.st_mtime_ns, state.st_size, state.st_ino
