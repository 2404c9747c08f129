"""vLLM behind plain values: prompts, limits, deltas, errors and statistics are translated here, and nowhere else.

Starting it is `model_executor/engine_process/vllm_config.py`'s business.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

from vllm import SamplingParams as VllmSamplingParams
from vllm.exceptions import VLLMClientError, VLLMError
from vllm.inputs.engine import mm_input, tokens_input
from vllm.lora.request import LoRARequest
from vllm.multimodal.inputs import MultiModalKwargsItems, PlaceholderRange
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from model_executor.checkpoint.lora import Adapter
from model_executor.engine import (
    Delta,
    EngineState,
    EngineStats,
    EngineUnavailableError,
    Modality,
    PositionLogprobs,
    Prompt,
    RequestFailedError,
    RequestRefusedError,
    SamplingParams,
    TokenLogprob,
)
from model_executor.engine_process.grammar_check import GrammarCheck
from model_executor.engine_process.grammar_process import structured_outputs
from model_executor.engine_process.media_files import OpenMediaFiles, check_placeholders
from model_executor.engine_process.stats import StatsCollector
from model_executor.engine_process.step_watch import StepWatch, engine_cpu_s
from model_executor.engine_process.vllm_config import load_adapters
from model_executor.models.qwen2_vl.processing import media_item
from model_executor.processor.geometry import Grid

_log = logging.getLogger(__name__)

_DEATH_POLL_S = 0.05
_STOP_TIMEOUT_S = 5


class VllmEngine:
    """Generates with vLLM; implements `session.Generator`.

    Args:
        engine: vLLM's engine.
        gauges: what `engine` reports its statistics to.
        held: keeps the media of running requests readable.
        grammars: says which grammars may reach vLLM.
        end_token_ids: ids after which an answer is over.
        adapters: served besides the model itself, once they are loaded.
    """

    def __init__(
        self,
        engine: AsyncLLM,
        gauges: StatsCollector,
        held: OpenMediaFiles,
        grammars: GrammarCheck,
        end_token_ids: tuple[int, ...],
        adapters: Sequence[Adapter],
    ) -> None:
        """See the class."""
        self._engine = engine
        self._gauges = gauges
        self._held = held
        self._grammars = grammars
        config = engine.model_config.hf_config
        self._placeholders: dict[Modality, int] = {"image": config.image_token_id, "video": config.video_token_id}
        self._end_token_ids = end_token_ids
        self._adapters = adapters
        self._loaded: dict[str, LoRARequest] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    async def load_adapters(self) -> None:
        """Load the adapters; call once, before the first request.

        Raises:
            SettingsError: one of them cannot be loaded.
        """
        self._loaded = await load_adapters(self._engine, self._adapters)

    async def generate(self, request_id: str, prompt: Prompt, limits: SamplingParams) -> AsyncGenerator[Delta, None]:
        """As `engine.Engine.generate`."""
        check_placeholders(prompt, self._placeholders)
        if prompt.adapter is not None and prompt.adapter not in self._loaded:
            raise RequestRefusedError("the adapter is not loaded", param="model")
        if limits.grammar is not None:
            await self._grammars.require(limits.grammar)
        params = self._sampling_params(limits)
        paths = self._held.hold(prompt.media)
        answered = False
        try:
            adapter = None if prompt.adapter is None else self._loaded[prompt.adapter]
            stream = self._engine.generate(_inputs(prompt, paths), params, request_id, lora_request=adapter)
            async with contextlib.aclosing(stream):
                async for output in stream:
                    answered = True
                    for delta in _deltas(output, limits):
                        yield delta
        except EngineDeadError as error:
            raise EngineUnavailableError("the engine was lost while it answered", EngineState.RESTARTING) from error
        except VLLMClientError as error:
            raise _refusal(error) from error
        except VLLMError as error:
            raise RequestFailedError("the engine failed on this request") from error
        finally:
            if paths:
                retiring = asyncio.create_task(self._retire(paths, answered=answered))
                self._retiring.add(retiring)
                retiring.add_done_callback(self._retiring.discard)

    def stats(self) -> EngineStats:
        """A fresh reading, without waiting."""
        return self._gauges.reading()

    async def wait_for_loss(self) -> None:
        """Return once vLLM's engine process is gone or stands still, or those that check grammars are gone."""
        watch = StepWatch(
            lambda: self._gauges.num_steps,
            self._engine.output_processor.get_num_unfinished_requests,
            engine_cpu_s,
        )
        while not self._engine.errored and not self._grammars.is_lost:
            if watch.is_stuck():
                _log.error("the engine stands still and is given up")
                return
            await asyncio.sleep(_DEATH_POLL_S)

    def close(self) -> None:
        """Stop vLLM."""
        self._engine.shutdown(timeout=_STOP_TIMEOUT_S)

    def _sampling_params(self, limits: SamplingParams) -> VllmSamplingParams:
        ends = [] if limits.ignore_eos else self._end_token_ids
        try:
            return VllmSamplingParams(
                n=limits.n,
                max_tokens=limits.max_tokens,
                temperature=limits.temperature,
                top_p=limits.top_p,
                top_k=limits.top_k,
                min_p=limits.min_p,
                presence_penalty=limits.presence_penalty,
                frequency_penalty=limits.frequency_penalty,
                repetition_penalty=limits.repetition_penalty,
                seed=limits.seed,
                stop=limits.stop,
                stop_token_ids=[*limits.stop_token_ids, *ends],
                include_stop_str_in_output=limits.include_stop_str_in_output,
                ignore_eos=limits.ignore_eos,
                min_tokens=limits.min_tokens,
                logprobs=limits.logprobs,
                logit_bias=limits.logit_bias or None,
                # To a grammar a special token is its name; left out, what remains would not follow the grammar.
                skip_special_tokens=limits.skip_special_tokens and limits.grammar is None,
                spaces_between_special_tokens=False,
                output_kind=RequestOutputKind.DELTA,
                structured_outputs=None if limits.grammar is None else structured_outputs(limits.grammar),
            )
        except (VLLMClientError, ValueError) as error:
            raise _refusal(error) from error

    async def _retire(self, paths: list[str], *, answered: bool) -> None:
        """Let go of a request's media once no step that may read them is left, and count what was encoded."""
        try:
            # Workers answer after every step scheduled so far, and an aborted request is not scheduled again.
            num_encoded = max(await self._engine.collective_rpc("take_encoded", args=(paths,)))
            if answered:
                self._gauges.count_media(len(paths), num_encoded)
        except EngineDeadError:
            _log.info("the engine was lost before it let go of %d media", len(paths))
        finally:
            self._held.release(paths)


def _inputs(prompt: Prompt, paths: list[str]) -> Any:
    """A prompt as vLLM takes it when nothing is left to process."""
    if not prompt.media:
        return tokens_input(prompt.token_ids, cache_salt=prompt.cache_salt)
    items: dict[str, list[Any]] = {}
    hashes: dict[str, list[str]] = {}
    places: dict[str, list[PlaceholderRange]] = {}
    for item, path in zip(prompt.media, paths, strict=True):
        items.setdefault(item.modality, []).append(media_item(path, Grid(*item.grid)))
        hashes.setdefault(item.modality, []).append(item.digest)
        places.setdefault(item.modality, []).append(PlaceholderRange(offset=item.offset, length=item.num_tokens))
    return mm_input(prompt.token_ids, MultiModalKwargsItems(items), hashes, places, cache_salt=prompt.cache_salt)


def _deltas(output: RequestOutput, limits: SamplingParams) -> Iterator[Delta]:
    for choice in output.outputs:
        if choice.finish_reason not in (None, "stop", "length"):
            raise RequestFailedError(f"the engine gave up on this request ({choice.finish_reason})")
        yield Delta(
            index=choice.index,
            text=choice.text,
            token_ids=list(choice.token_ids),
            logprobs=None if limits.logprobs is None else _logprobs(choice, limits.logprobs),
            finish_reason=choice.finish_reason,
            num_cached_tokens=output.num_cached_tokens or 0,
        )


def _logprobs(choice: CompletionOutput, num_top: int) -> list[PositionLogprobs]:
    """From vLLM, per position: the sampled token and the `num_top` most likely ones in one dictionary."""
    positions = []
    for token_id, alternatives in zip(choice.token_ids, choice.logprobs or [], strict=True):
        ranked = sorted((item for item in alternatives.items() if item[1].rank <= num_top), key=lambda i: i[1].rank)
        top = [TokenLogprob(other, value.logprob) for other, value in ranked]
        positions.append(PositionLogprobs(TokenLogprob(token_id, alternatives[token_id].logprob), top))
    return positions


def _refusal(error: Exception) -> RequestRefusedError:
    message = str(error.args[0]) if error.args else str(error)
    return RequestRefusedError(message, param=getattr(error, "parameter", None))
