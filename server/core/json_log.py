"""Logging setup: one JSON object per line on stderr."""

import json
import logging
import sys
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """Writes a record and its `fields` (an `extra` dictionary of plain values) as one JSON object.

    Args:
        server: the server's name, which every line gets; None: it has none.
    """

    def __init__(self, server: str | None = None) -> None:
        super().__init__()
        self._common = {} if server is None else {"server": server}

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._common,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def configure_logging(server: str | None = None) -> None:
    """Send all logs to stderr as JSON, with the server's name; of uvicorn's, only warnings and errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(server))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns about every malformed form, which any client can send any number of times.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
