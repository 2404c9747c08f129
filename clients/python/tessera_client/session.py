"""A key by which proxies send requests on the same media to the same server, where these are in its caches."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

HEADER = "x-session-id"


def session_headers(messages: Sequence[Any]) -> dict[str, str]:
    """The header for a request with these messages.

    The key is a digest of the first image or video, or else of the first message that is not the system's: what stays
    the same from turn to turn, and in other conversations about the same media.
    """
    parts = [part for message in messages for part in _parts(message) if part.get("type") != "text"]
    others = [message for message in messages if message.get("role") != "system"]
    first = parts[0] if parts else others[0] if others else ""
    digest = hashlib.sha256(json.dumps(first, sort_keys=True, default=str).encode()).hexdigest()
    return {HEADER: digest[:32]}


def _parts(message: Any) -> list[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else []
