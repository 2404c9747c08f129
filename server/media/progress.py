"""How far the preparation of a request's images and videos is: workers count, the waiting stream reads."""

from dataclasses import dataclass


@dataclass(slots=True)
class FrameCount:
    """How far one image or video is."""

    num_done: int = 0
    num_total: int = 0
    """0 while unknown."""

    def finish(self) -> None:
        """Count everything as done; an image counts as one frame."""
        self.num_total = max(1, self.num_total)
        self.num_done = self.num_total


class Progress:
    """How far the media of one request are. Every part has the same weight, whatever it costs."""

    def __init__(self) -> None:
        """Nothing is being prepared yet."""
        self._parts: list[FrameCount] = []

    def begin(self, num_parts: int) -> None:
        """Start to count for a number of parts."""
        self._parts = [FrameCount() for _ in range(num_parts)]

    def follow(self, index: int, frames: FrameCount) -> None:
        """Let `frames` say how far the part `index` is."""
        self._parts[index] = frames

    def end(self) -> None:
        """Stop counting."""
        self._parts = []

    def text(self) -> str | None:
        """The progress as text for the waiting client; None while nothing is known."""
        shares = [part.num_done / part.num_total for part in self._parts if part.num_total]
        if not shares:
            return None
        return f"preparing media {int(100 * sum(shares) / len(self._parts))} %"
