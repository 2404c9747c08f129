"""Bringing a checkpoint up: find it, start its engine process and the media workers, read its tokenizer.

Everything slow happens in a thread or in another process; the HTTP side answers 503 meanwhile.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from model_executor.checkpoint.config import (
    BUNDLED_MODEL,
    Checkpoint,
    CheckpointError,
    read_checkpoint,
    resolve_checkpoint,
)
from model_executor.checkpoint.lora import read_adapters
from model_executor.client.engine_client import EngineClient
from model_executor.processor.tokenizer import Tokenizer
from server.chat.serving import ServedModel
from server.core.settings import Settings
from server.media.preprocessor import MediaPreprocessor

T = TypeVar("T")

BUNDLED_DESCRIPTION = (
    "This is the bundled toy model: drawn shapes in ten colors, printed capitals and numbers, handwritten digits and "
    "short videos of shapes, asked about in English. For photographs, serve Qwen2-VL-2B-Instruct (see the README)."
)
"""What the page says of the model that ships with the server, so that nobody takes it for a general one."""


@asynccontextmanager
async def open_model(settings: Settings) -> AsyncIterator[ServedModel]:
    """The model of the settings, while it is served; its engine may still be loading when this yields.

    Raises:
        CheckpointError: the model, or one of its adapters, cannot be found, fetched or understood.
    """
    checkpoint = await _in_thread(lambda: _found(settings.model))
    adapters = await _in_thread(lambda: _adapter_names(settings, checkpoint))
    async with AsyncExitStack() as stack:
        engine = EngineClient(checkpoint.folder, settings.engine)
        await engine.start()
        stack.push_async_callback(engine.close)
        media = MediaPreprocessor(
            settings.media,
            image_min_pixels=checkpoint.image_min_pixels,
            image_max_pixels=checkpoint.image_max_pixels,
            video_min_pixels=checkpoint.video_min_pixels,
            video_max_pixels=checkpoint.video_max_pixels,
        )
        await media.start()
        stack.push_async_callback(media.close)
        yield ServedModel(
            name=settings.model_name,
            created=int(time.time()),
            engine=engine,
            media=media,
            tokenizer=await _in_thread(lambda: Tokenizer(checkpoint.folder)),
            chat_template=checkpoint.chat_template,
            end_token_ids=checkpoint.end_token_ids,
            adapters=adapters,
            description=BUNDLED_DESCRIPTION if settings.model == BUNDLED_MODEL else None,
        )


def _found(model: str) -> Checkpoint:
    return read_checkpoint(resolve_checkpoint(model))


def _adapter_names(settings: Settings, checkpoint: Checkpoint) -> tuple[str, ...]:
    names = tuple(adapter.name for adapter in read_adapters(settings.engine.lora_dir, checkpoint.folder))
    if settings.model_name in names:
        raise CheckpointError(f"an adapter has the name of the model, {settings.model_name!r}")
    return names


async def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that does not keep the process from ending: a download may take hours."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(action: Callable[[], None]) -> None:
        if not result.done():  # the waiter may have been cancelled
            action()

    def run() -> None:
        try:
            value = work()
        except BaseException as error:
            failure = error
            _call(loop, lambda: settle(lambda: result.set_exception(failure)))
        else:
            _call(loop, lambda: settle(lambda: result.set_result(value)))

    threading.Thread(target=run, daemon=True, name="opening").start()
    return await result


def _call(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    if not loop.is_closed():  # closed: the process is ending and nobody waits
        loop.call_soon_threadsafe(action)
