"""Time that passes when told to."""

from dataclasses import dataclass


@dataclass
class Clock:
    """A clock that is set by hand."""

    now_s: float = 0.0

    def __call__(self) -> float:
        """Seconds since whenever."""
        return self.now_s
