"""Why vLLM did not start, in one sentence: carried from whichever of its processes knows it to the one that asks.

vLLM's own processes log the exception they die of and pass on no more than that they died. So each of them gets a
filter of log records that keeps the first such exception in a file of the engine process's scratch directory. (Filters
stay where vLLM configures its logging anew; handlers do not.) What the exception is
decides whether another start can succeed: memory, devices, sockets and files may come back, everything else is the
model's or the settings', and stays.
"""

import logging
import os
import re
import tempfile
from pathlib import Path

MAX_CHARACTERS = 600
"""Of a sentence; vLLM quotes whole configurations."""

_SEPARATOR = "\n"
_LOGGERS = ("vllm.v1.engine.core", "vllm.v1.executor.multiproc_executor")
"""Those that log what an engine or a worker process dies of."""
_MAY_HEAL = re.compile(
    r"memory|cuda|nccl|gloo|hip\b|driver|socket|connect|timed? ?out|address|temporar|space left|too many open|killed",
    re.IGNORECASE,
)
_SAYS_NOTHING = re.compile(r"initialization failed|root cause", re.IGNORECASE)


class StartFailure:
    """Why a start failed.

    Args:
        error: what was raised where the engine was started.
    """

    def __init__(self, error: BaseException) -> None:
        """Read what vLLM's processes have left, if anything; `error` itself is the reason where they have not."""
        kind, text = type(error).__name__, str(error)
        if (recorded := _path()).is_file():
            kind, _, text = recorded.read_text("utf-8", "replace").partition(_SEPARATOR)
        sentence = " ".join(text.split()) or "no reason given"
        self.reason = f"the engine cannot load the model: {kind}: {sentence[:MAX_CHARACTERS]}"
        """The sentence."""
        is_system = isinstance(error, OSError | MemoryError) and not isinstance(error, FileNotFoundError)
        self.may_heal = (
            is_system or bool(_MAY_HEAL.search(f"{kind} {sentence}")) or bool(_SAYS_NOTHING.search(sentence))
        )
        """Whether another start may succeed."""


def record_exceptions() -> None:
    """Have this process, and those forked from it, keep the first exception that vLLM logs. Again changes nothing."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(each, _FirstException) for each in logger.filters):
            logger.addFilter(_FirstException())


class _FirstException(logging.Filter):
    """Lets every record pass, and keeps the exception of the first one that has one."""

    def filter(self, record: logging.LogRecord) -> bool:
        _keep(record)
        return True


def _keep(record: logging.LogRecord) -> None:
    error = record.exc_info[1] if record.exc_info else None
    if error is None or _SAYS_NOTHING.search(str(error)):
        return
    content = f"{type(error).__name__}{_SEPARATOR}{error}".encode("utf-8", "replace")
    try:
        file = os.open(_path(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return  # an earlier one is there, and the first one is the cause
    with os.fdopen(file, "wb") as target:
        target.write(content)


def _path() -> Path:
    """The file, in the directory that the client made for one engine process and all its children."""
    return Path(tempfile.gettempdir()) / "start-failure"
