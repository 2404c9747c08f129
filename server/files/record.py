"""What the server knows of one uploaded file."""

from typing import Literal

import msgspec

from model_executor.engine import Modality

Purpose = Literal["vision", "user_data"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file, as it lies beside its content on disk."""

    id: str
    filename: str
    """As the client has it; never part of a path."""
    purpose: Purpose
    num_bytes: int
    created_ns: int
    """Nanoseconds since 1970, so that files of one second keep their order."""
    expires_at: int
    """Seconds since 1970."""
    modality: Modality
    """Told by the content."""

    @property
    def created_at(self) -> int:
        """Seconds since 1970."""
        return self.created_ns // 1_000_000_000
