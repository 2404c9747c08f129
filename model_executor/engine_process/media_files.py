"""Opens and checks the patch files of running requests, so that they stay readable until the engine has used them.

The owner of a request deletes its files as soon as the request has ended for it, which may be during a step that reads
them. So the engine process opens every file when a request starts, and vLLM reads it through that descriptor.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from model_executor.engine import MediaItem, Modality, RequestFailedError
from model_executor.processor.geometry import TEMPORAL_PATCH_FRAMES, Grid
from model_executor.processor.patches import row_bytes

_NUM_FRAMES: dict[Modality, int] = {"image": 1, "video": TEMPORAL_PATCH_FRAMES}


class OpenMediaFiles:
    """Open patch files of running requests.

    Args:
        root: the directory that must contain every file.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._descriptors: dict[str, int] = {}

    def open(self, media: Sequence[MediaItem]) -> list[str]:
        """Open the files of a request; returns paths under which the engine's processes can read them.

        Raises:
            RequestFailedError: a file is missing, outside of the root, or does not have the size of its grid.
        """
        paths: list[str] = []
        try:
            for item in media:
                descriptor = self._open_item(item)
                paths.append(f"/proc/{os.getpid()}/fd/{descriptor}")
                self._descriptors[paths[-1]] = descriptor
        except BaseException:
            self.close(paths)
            raise
        return paths

    def close(self, paths: Sequence[str]) -> None:
        """Close files that `open` has opened."""
        for path in paths:
            os.close(self._descriptors.pop(path))

    def _open_item(self, item: MediaItem) -> int:
        if not Path(item.path).resolve().is_relative_to(self._root):
            raise RequestFailedError("a media file is outside of this server's shared memory")
        try:
            descriptor = os.open(item.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise RequestFailedError(f"a media file cannot be read: {error.strerror}") from error
        status = os.fstat(descriptor)
        num_bytes = Grid(*item.grid).num_patches * row_bytes(_NUM_FRAMES[item.modality])
        if not stat.S_ISREG(status.st_mode) or status.st_size != num_bytes:
            os.close(descriptor)
            raise RequestFailedError(
                f"the media file of grid {item.grid} has {status.st_size} bytes instead of {num_bytes}"
            )
        return descriptor
