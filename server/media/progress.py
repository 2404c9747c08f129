"""How far the preparation of media is: counted by workers, read by whoever waits for it. Plain values."""

from dataclasses import dataclass


@dataclass(slots=True)
class FrameCount:
    """How far one medium is."""

    num_done: int = 0
    num_total: int = 0
    """0 until it is known."""

    def finish(self) -> None:
        """Everything is done; a picture counts as one frame."""
        self.num_total = max(1, self.num_total)
        self.num_done = self.num_total


class Progress:
    """How far the media of one request are. Every part weighs the same, whatever it costs."""

    def __init__(self) -> None:
        """Nothing is being prepared yet."""
        self._parts: list[FrameCount] = []

    def begin(self, num_parts: int) -> None:
        """Parts are being prepared from now on."""
        self._parts = [FrameCount() for _ in range(num_parts)]

    def follow(self, index: int, frames: FrameCount) -> None:
        """The part `index` is as far as `frames` tells from now on."""
        self._parts[index] = frames

    def end(self) -> None:
        """Nothing is being prepared any more."""
        self._parts = []

    def text(self) -> str | None:
        """What to tell somebody who waits; None where there is nothing to tell."""
        shares = [part.num_done / part.num_total for part in self._parts if part.num_total]
        if not shares:
            return None
        return f"preparing media {int(100 * sum(shares) / len(self._parts))} %"
