"""The encoded bytes of media parts, brought into shared memory within their limits."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Sequence
from typing import TypeVar

from server.core.errors import BadRequestError
from server.core.settings import MediaSettings
from server.media.fetch.fetcher import Fetcher
from server.media.request_limits import RequestBudget
from server.media.shared_memory import SharedFile, SharedFolder
from server.media.types import MediaPart

T = TypeVar("T")

_PARALLEL_FRAMES = 8
"""Frames of one list fetched at the same time."""


class Contents:
    """Brings what the sources of parts stand for.

    Args:
        settings: `max_image_bytes` and `max_video_bytes` are read.
        fetcher: brings the bytes.
        folder: where they go.
    """

    def __init__(self, settings: MediaSettings, fetcher: Fetcher, folder: SharedFolder) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._folder = folder

    async def fetch(self, part: MediaPart, stack: contextlib.ExitStack, allowance: RequestBudget) -> list[SharedFile]:
        """The part's bytes in shared memory, until `stack` closes: one file, or one for each frame of a list.

        Args:
            part: whose bytes.
            stack: releases them when it closes.
            allowance: of the request; what is fetched counts.

        Raises:
            BadRequestError: a URL cannot be used, or leads to too much.
            DeadlineError: a URL took too long.
            SharedMemoryFullError: see the class.
        """
        if not isinstance(part.source, tuple):
            is_clip = part.modality == "video"
            limit = "media.max_video_bytes" if is_clip else "media.max_image_bytes"
            max_bytes = self._settings.max_video_bytes if is_clip else self._settings.max_image_bytes
            content = self._empty_file(stack)

            def append(data: bytes) -> None:
                allowance.take_bytes(len(data), part.param)
                content.append(data)

            await self._fetcher.fetch(part.source, append, max_bytes=max_bytes, limit=limit, param=part.param)
            return [content]
        return await self._fetch_frames(part.source, stack, part.param, allowance)

    async def _fetch_frames(
        self, urls: Sequence[str], stack: contextlib.ExitStack, param: str, allowance: RequestBudget
    ) -> list[SharedFile]:
        """The frames of a list, which all together must stay below the limit of a clip."""
        max_bytes, max_clip_bytes = self._settings.max_image_bytes, self._settings.max_video_bytes
        places = asyncio.Semaphore(_PARALLEL_FRAMES)
        total_bytes = 0

        async def fetch(url: str, content: SharedFile) -> None:
            def append(data: bytes) -> None:
                nonlocal total_bytes
                allowance.take_bytes(len(data), param)
                total_bytes += len(data)
                if total_bytes > max_clip_bytes:
                    raise BadRequestError(
                        f"The frames are together larger than {max_clip_bytes} bytes (media.max_video_bytes).",
                        param=param,
                    )
                content.append(data)

            async with places:
                await self._fetcher.fetch(url, append, max_bytes=max_bytes, limit="media.max_image_bytes", param=param)

        contents = [self._empty_file(stack) for _ in urls]
        await together(fetch(url, content) for url, content in zip(urls, contents, strict=True))
        return contents

    def _empty_file(self, stack: contextlib.ExitStack) -> SharedFile:
        content = self._folder.lease(0)
        stack.callback(content.release)
        return content


async def together(work: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """Do all of it at the same time; where one fails, all have ended before the first error is raised."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise
