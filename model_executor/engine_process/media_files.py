"""The media of running requests: checked against the prompt, and kept readable until the engine is done with them.

The owner of a request deletes its files as soon as the request has ended for it, which may be while a step that reads
them is under way. So the host opens every file when a request begins, and the engine reads it through that descriptor.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model_executor.engine import MediaItem, Modality, Prompt, RequestFailedError
from model_executor.processor.geometry import TEMPORAL_PATCH_FRAMES, Grid
from model_executor.processor.patches import row_bytes

_NUM_FRAMES: dict[Modality, int] = {"image": 1, "video": TEMPORAL_PATCH_FRAMES}


def check_placeholders(prompt: Prompt, placeholders: dict[Modality, int]) -> None:
    """Check that placeholders and grids agree: vLLM would not notice, and compute wrong embeddings.

    Args:
        prompt: of a request.
        placeholders: token id of each modality.

    Raises:
        RequestFailedError: they do not; a fault of whoever made the prompt.
    """
    ids = np.asarray(prompt.token_ids)
    end = 0
    for item in prompt.media:
        run = ids[item.offset : item.offset + item.num_tokens]
        fits = item.num_tokens == len(run) == Grid(*item.grid).num_tokens
        if item.offset < end or not fits or (run != placeholders[item.modality]).any():
            raise RequestFailedError(f"the placeholders at {item.offset} do not fit a medium of grid {item.grid}")
        end = item.offset + item.num_tokens
    num_placeholders = int(np.isin(ids, list(placeholders.values())).sum())
    if num_placeholders != sum(item.num_tokens for item in prompt.media):
        raise RequestFailedError("the prompt has placeholders that belong to no medium")


class OpenMediaFiles:
    """Open files of running requests.

    Args:
        root: folder below which every file must lie.
    """

    def __init__(self, root: Path) -> None:
        """See the class."""
        self._root = root.resolve()
        self._descriptors: dict[str, int] = {}

    def hold(self, media: Sequence[MediaItem]) -> list[str]:
        """Open the files of a request; returns names under which the engine's processes can read them.

        Raises:
            RequestFailedError: a file is missing, elsewhere, or not of the size its grid asks for.
        """
        paths: list[str] = []
        try:
            for item in media:
                descriptor = self._open(item)
                paths.append(f"/proc/{os.getpid()}/fd/{descriptor}")
                self._descriptors[paths[-1]] = descriptor
        except BaseException:
            self.release(paths)
            raise
        return paths

    def release(self, paths: Sequence[str]) -> None:
        """Close what `hold` opened."""
        for path in paths:
            os.close(self._descriptors.pop(path))

    def _open(self, item: MediaItem) -> int:
        if not Path(item.path).resolve().is_relative_to(self._root):
            raise RequestFailedError("a medium lies outside the shared memory of this server")
        try:
            descriptor = os.open(item.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise RequestFailedError(f"a medium cannot be read: {error.strerror}") from error
        status = os.fstat(descriptor)
        num_bytes = Grid(*item.grid).num_patches * row_bytes(_NUM_FRAMES[item.modality])
        if not stat.S_ISREG(status.st_mode) or status.st_size != num_bytes:
            os.close(descriptor)
            raise RequestFailedError(f"a medium of grid {item.grid} has {status.st_size} bytes")
        return descriptor
