"""Fetches the encoded bytes of a request's images and videos into shared memory, within their size limits."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Sequence
from typing import TypeVar

from server.core.settings import MediaSettings
from server.media.errors import MediaError
from server.media.fetch.fetcher import Fetcher
from server.media.request_limits import RequestBudget
from server.media.shared_memory import SharedDirectory, SharedFile
from server.media.types import MediaPart

T = TypeVar("T")

_PARALLEL_FRAMES = 8
"""Frames of one list that are fetched at the same time."""


class PartFetcher:
    """Fetches the sources of media parts.

    Args:
        settings: `max_image_bytes` and `max_video_bytes` are read.
        fetcher: fetches one URL or file.
        directory: where the bytes go.
    """

    def __init__(self, settings: MediaSettings, fetcher: Fetcher, directory: SharedDirectory) -> None:
        """Nothing is fetched yet."""
        self._settings = settings
        self._fetcher = fetcher
        self._directory = directory

    async def fetch(
        self, part: MediaPart, stack: contextlib.ExitStack, request_budget: RequestBudget
    ) -> list[SharedFile]:
        """Fetch one part: one file, or one for each frame of a list.

        Args:
            part: the image or video.
            stack: releases the files when it closes.
            request_budget: counts what is fetched.

        Raises:
            MediaError: a URL cannot be used, or there is too much behind it.
            DeadlineError: a URL took too long.
            SharedMemoryFullError: see the class.
        """
        if isinstance(part.source, tuple):
            return await self._fetch_frames(part.source, stack, request_budget)
        max_bytes, limit = self._settings.max_image_bytes, "media.max_image_bytes"
        if part.modality == "video":
            max_bytes, limit = self._settings.max_video_bytes, "media.max_video_bytes"
        content = self._empty_file(stack)

        def append(data: bytes) -> None:
            request_budget.add_bytes(len(data))
            content.append(data)

        await self._fetcher.fetch(part.source, append, max_bytes=max_bytes, limit=limit)
        return [content]

    async def _fetch_frames(
        self, urls: Sequence[str], stack: contextlib.ExitStack, request_budget: RequestBudget
    ) -> list[SharedFile]:
        """Fetch the frames of a list, which all together must stay below the limit of a video."""
        max_bytes, max_video_bytes = self._settings.max_image_bytes, self._settings.max_video_bytes
        slots = asyncio.Semaphore(_PARALLEL_FRAMES)
        total_bytes = 0

        async def fetch(url: str, content: SharedFile) -> None:
            def append(data: bytes) -> None:
                nonlocal total_bytes
                request_budget.add_bytes(len(data))
                total_bytes += len(data)
                if total_bytes > max_video_bytes:
                    raise MediaError(
                        "media_file_too_large",
                        f"The frames together are larger than {max_video_bytes} bytes (media.max_video_bytes).",
                    )
                content.append(data)

            async with slots:
                await self._fetcher.fetch(url, append, max_bytes=max_bytes, limit="media.max_image_bytes")

        contents = [self._empty_file(stack) for _ in urls]
        await gather_all(fetch(url, content) for url, content in zip(urls, contents, strict=True))
        return contents

    def _empty_file(self, stack: contextlib.ExitStack) -> SharedFile:
        content = self._directory.create_file(0)
        stack.callback(content.release)
        return content


async def gather_all(work: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """Run all of `work` concurrently; where one fails, all have ended before the first error is raised."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise
