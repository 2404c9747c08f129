"""The metadata of an uploaded file, as stored on disk."""

import hashlib
from typing import Literal

import msgspec

from model_executor.engine import Modality

Purpose = Literal["vision", "user_data"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The metadata of one file, stored next to its content."""

    id: str
    filename: str
    """The name on the client; never part of a path here."""
    purpose: Purpose
    num_bytes: int
    created_ns: int
    """Nanoseconds since 1970, so that files of the same second keep their order."""
    expires_at: int
    """Seconds since 1970."""
    modality: Modality
    """Detected from the content."""

    @property
    def created_at(self) -> int:
        """Seconds since 1970."""
        return self.created_ns // 1_000_000_000


def owner_of(tenant: str) -> str:
    """The tenant's name where files are kept, from which the key cannot be derived."""
    return hashlib.sha256(b"tessera-files\0" + tenant.encode()).hexdigest()[:32]
