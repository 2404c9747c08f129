"""Loads the model: finds or downloads the checkpoint, starts the engine process and media workers, reads the tokenizer.

Everything slow runs in a thread or another process; until it is complete, the server answers with status 503.
"""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from model_executor.checkpoint.config import BUNDLED_MODEL, Checkpoint, read_checkpoint, resolve_checkpoint
from model_executor.checkpoint.errors import CheckpointError
from model_executor.checkpoint.lora import read_adapters
from model_executor.checkpoint.weights import check_weights
from model_executor.client.engine_pool import EnginePool
from model_executor.processor.tokenizer import Tokenizer, TokenizerFileError
from server.core.concurrency import run_abandonable
from server.core.settings import Settings
from server.generation.model_service import ServedModel
from server.media.preprocessor import MediaPreprocessor

BUNDLED_DESCRIPTION = (
    "This is the bundled toy model: drawn shapes in eleven colors, printed words and numbers, handwritten digits and "
    "short videos of shapes, asked about in English and Chinese. For photographs, serve Qwen2-VL-2B-Instruct (see the "
    "README)."
)
"""What the page says of the model that ships with the server, so that nobody takes it for a general one."""


@asynccontextmanager
async def open_model(settings: Settings) -> AsyncIterator[ServedModel]:
    """Load the model of the settings and unload it on exit; its engine may still be loading when this yields.

    Raises:
        CheckpointError: the model, or one of its adapters, cannot be found, fetched or understood.
    """
    checkpoint = await run_abandonable(lambda: _load_checkpoint(settings.model))
    adapters = await run_abandonable(lambda: _adapter_names(settings, checkpoint))
    async with AsyncExitStack() as stack:
        engine = EnginePool(checkpoint.directory, settings.engine)
        await engine.start()
        stack.push_async_callback(engine.close)
        media = MediaPreprocessor(
            settings.media,
            image_min_pixels=checkpoint.image_min_pixels,
            image_max_pixels=checkpoint.image_max_pixels,
            video_min_pixels=checkpoint.video_min_pixels,
            video_max_pixels=checkpoint.video_max_pixels,
            image_size=checkpoint.family.image_size,
        )
        await media.start()
        stack.push_async_callback(media.close)
        yield ServedModel(
            name=settings.model_name,
            created=int(time.time()),
            engine=engine,
            media=media,
            tokenizer=await run_abandonable(lambda: _read_tokenizer(checkpoint)),
            chat_template=checkpoint.chat_template,
            tool_template=checkpoint.tool_template,
            end_token_ids=checkpoint.end_token_ids,
            adapters=adapters,
            sampling_defaults={} if settings.engine.generation_config == "none" else checkpoint.sampling_defaults,
            description=BUNDLED_DESCRIPTION if settings.model == BUNDLED_MODEL else None,
            family=checkpoint.family,
            prompt_format=checkpoint.prompt_format,
        )


def _load_checkpoint(model: str) -> Checkpoint:
    checkpoint = read_checkpoint(resolve_checkpoint(model))
    check_weights(checkpoint.directory)
    return checkpoint


def _adapter_names(settings: Settings, checkpoint: Checkpoint) -> tuple[str, ...]:
    names = tuple(adapter.name for adapter in read_adapters(settings.engine.lora_dir, checkpoint.directory))
    if settings.model_name in names:
        raise CheckpointError(f"an adapter has the same name as the model: {settings.model_name!r}")
    return names


def _read_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    try:
        prompt_format = checkpoint.prompt_format
        return Tokenizer(checkpoint.tokenizer_dir, prompt_format.placeholders, prompt_format.user_tokens)
    except TokenizerFileError as error:
        raise CheckpointError(str(error)) from error
