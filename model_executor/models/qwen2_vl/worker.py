"""A method that vLLM's worker processes get besides their own: which media the model has really encoded.

It tells cache hits from work, and since workers answer in order, its answer also means that every step scheduled before
the question has run.
"""

from typing import Any


class EncodedMedia:
    """Mixed into vLLM's worker class; `collective_rpc("take_encoded", ...)` calls it."""

    def take_encoded(self: Any, paths: list[str]) -> int:
        """How many of `paths` the vision tower has read; forgets them.

        Args:
            paths: as items carry them, none asked about twice.
        """
        encoded: set[str] = self.get_model().encoded_paths
        found = encoded.intersection(paths)
        encoded -= found
        return len(found)
