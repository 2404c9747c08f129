"""A folder for what vLLM leaves in its temporary folder, sockets above all; it goes with the host, however that ends.

Its owner holds a lock on a file in it; a folder whose lock can be taken was left by a server that was killed, and is
removed at the next start.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "tessera-engine-"
_LOCK = "lock"


class ScratchFolder:
    """Made on construction.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self) -> None:
        """See the class."""
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        """The folder; its name is short, as those of sockets are."""
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Delete it with all that is in it; may be called more than once."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sweep_scratch() -> None:
    """Delete the folders of servers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or being removed by its owner
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
