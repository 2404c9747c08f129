"""The media service with real workers, and what it is asked to prepare."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import skimage.data
from PIL import Image

from server.core.settings import MediaSettings
from server.media.preprocessor import MediaPreprocessor
from server.media.types import MediaLimits, MediaPart
from tests.support.images import data_url, encoded
from tests.support.videos import encode, numbered

PHOTO = encoded(Image.fromarray(skimage.data.astronaut()), "JPEG")
VIDEO = encode(numbered(50))


def image_part(data: bytes, param: str = "image", **limits: Any) -> MediaPart:
    return MediaPart("image", data_url(data), param, MediaLimits(**limits))


def video_part(data: bytes, param: str = "video", **limits: Any) -> MediaPart:
    return MediaPart("video", data_url(data), param, MediaLimits(**limits))


def files(root: Path) -> list[Path]:
    """Everything the service has in shared memory, without its lock."""
    return [path for path in root.glob("*/*") if path.name != "lock"]


@asynccontextmanager
async def running(root: Path, *, max_cache_bytes: int = 0, **settings: Any) -> AsyncIterator[MediaPreprocessor]:
    """A service that keeps nothing for later, unless told to."""
    configured = MediaSettings(max_cache_bytes=max_cache_bytes, **settings)
    service = MediaPreprocessor(configured, image_min_pixels=3136, image_max_pixels=12_845_056, shared_memory=root)
    await service.start()
    try:
        yield service
        assert service.load.shared_bytes == 0
        assert sum(map(os.path.getsize, files(root))) == service.load.cache.idle_bytes
    finally:
        await service.close()
        assert list(root.iterdir()) == []
