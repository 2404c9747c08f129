"""Extension of vLLM's worker class: reports which media items the model has encoded.

It distinguishes encoder-cache hits from computed items. Since workers reply in order, its reply also means that every
step scheduled before the call has run.
"""

from typing import Any


class EncodedMedia:
    """Mixed into vLLM's worker class; `collective_rpc("take_encoded", ...)` calls it."""

    def take_encoded(self: Any, paths: list[str]) -> int:
        """The number of `paths` that the vision tower has read since the last call; removes them from its record.

        Args:
            paths: of items; each is queried only once.
        """
        encoded: set[str] = self.get_model().encoded_paths
        matches = encoded.intersection(paths)
        encoded -= matches
        return len(matches)
