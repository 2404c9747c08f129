"""Translates between our values and vLLM's: prompts, sampling parameters, deltas, errors and statistics.

`model_executor/engine_process/vllm_config.py` starts vLLM.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

from msgspec import structs
from vllm import SamplingParams as VllmSamplingParams
from vllm.exceptions import VLLMClientError, VLLMError
from vllm.inputs.engine import mm_input, tokens_input
from vllm.lora.request import LoRARequest
from vllm.multimodal.inputs import MultiModalKwargsItems, PlaceholderRange
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from model_executor.checkpoint.config import Checkpoint
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
from model_executor.engine_process.media_files import OpenMediaFiles
from model_executor.engine_process.stats import StatsCollector
from model_executor.engine_process.step_watch import StepWatch, engine_cpu_s
from model_executor.engine_process.vllm_config import load_adapters
from model_executor.models.shared.processing import media_item
from model_executor.processor.dynamic_ntk import num_raises
from model_executor.processor.geometry import Grid
from model_executor.processor.mrope_positions import MAX_VIDEO_S, MediaSpan, mrope_positions, num_positions
from model_executor.processor.placeholders import find_placeholder_fault

_log = logging.getLogger(__name__)

MAX_PROMPT_LOGITS_BYTES = 5 << 28
"""Logits of a prompt that one step may compute, as float32; twice as much again is needed for what is made of them."""
_DEATH_POLL_S = 0.05
_STOP_TIMEOUT_S = 5


class VllmEngine:
    """Generates with vLLM; implements `session.Generator`.

    Args:
        engine: vLLM's engine.
        stats: collects the statistics of `engine`.
        files: keeps the media of running requests readable.
        grammars: decides which grammars may reach vLLM.
        checkpoint: of the model.
        adapters: served in addition to the model itself, once they are loaded.
    """

    def __init__(
        self,
        engine: AsyncLLM,
        stats: StatsCollector,
        files: OpenMediaFiles,
        grammars: GrammarCheck,
        checkpoint: Checkpoint,
        adapters: Sequence[Adapter],
    ) -> None:
        self._engine = engine
        self._stats = stats
        self._files = files
        self._grammars = grammars
        config = engine.model_config.hf_config
        self.placeholder_ids: dict[Modality, int] = {"image": config.image_token_id, "video": config.video_token_id}
        """Token ids that stand for images and videos."""
        self.family = checkpoint.family
        self._end_token_ids = checkpoint.end_token_ids
        self._time_ids_per_s = checkpoint.time_ids_per_s
        self._trained_tokens = checkpoint.trained_tokens
        self._adapters = adapters
        self._loaded: dict[str, LoRARequest] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def max_num_seqs(self) -> int:
        """Sequences vLLM generates at the same time."""
        return int(self._engine.vllm_config.scheduler_config.max_num_seqs)

    async def load_adapters(self) -> None:
        """Load the adapters; call once, before the first request.

        Raises:
            SettingsError: an adapter cannot be loaded.
        """
        self._loaded = await load_adapters(self._engine, self._adapters)

    async def generate(self, request_id: str, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """As `engine.Engine.generate`."""
        if (fault := find_placeholder_fault(prompt, self.placeholder_ids)) is not None:
            raise RequestFailedError(fault)
        self._require_positions(prompt, params.max_tokens)
        if prompt.adapter is not None and prompt.adapter not in self._loaded:
            raise RequestRefusedError("The adapter is not loaded.", param="model", code="model_not_found")
        if params.grammar is not None:
            await self._grammars.require(params.grammar)
        if params.prompt_logprobs is not None:
            self._require_room_for_logits(len(prompt.token_ids))
        vllm_params = self._vllm_params(params)
        paths = self._files.open(prompt.media)
        answered = False
        try:
            adapter = None if prompt.adapter is None else self._loaded[prompt.adapter]
            stream = self._engine.generate(
                _inputs(self._keyed(prompt), paths), vllm_params, request_id, lora_request=adapter
            )
            async with contextlib.aclosing(stream):
                async for output in stream:
                    answered = True
                    for delta in _deltas(output, params):
                        yield delta
        except EngineDeadError as error:
            raise EngineUnavailableError("the engine was lost while generating", EngineState.RESTARTING) from error
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
        """The current statistics, without waiting."""
        return self._stats.stats()

    async def wait_for_loss(self) -> None:
        """Wait until vLLM's engine process is gone or stuck, or those that check grammars are gone."""
        watch = StepWatch(
            lambda: self._stats.num_steps,
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

    def _require_room_for_logits(self, num_tokens: int) -> None:
        """Check that the logits of all of a prompt's positions in one step fit: vLLM sets no memory aside for them.

        Raises:
            RequestRefusedError: they do not.
        """
        config = self._engine.vllm_config
        most = MAX_PROMPT_LOGITS_BYTES // (4 * int(config.model_config.get_vocab_size()))
        if min(num_tokens, int(config.scheduler_config.max_num_batched_tokens)) > most:
            raise RequestRefusedError(
                f"Log-probabilities of a prompt are computed for up to {most} tokens, and the prompt has {num_tokens}; "
                f"with engine.max_num_batched_tokens at {most} or less, the server computes them for any.",
                param="echo",
                code="invalid_value",
            )

    def _vllm_params(self, params: SamplingParams) -> VllmSamplingParams:
        end_token_ids = [] if params.ignore_eos else self._end_token_ids
        try:
            return VllmSamplingParams(
                n=params.n,
                max_tokens=params.max_tokens,
                temperature=params.temperature,
                top_p=params.top_p,
                top_k=params.top_k,
                min_p=params.min_p,
                presence_penalty=params.presence_penalty,
                frequency_penalty=params.frequency_penalty,
                repetition_penalty=params.repetition_penalty,
                seed=params.seed,
                stop=params.stop,
                stop_token_ids=[*params.stop_token_ids, *end_token_ids],
                include_stop_str_in_output=params.include_stop_str_in_output,
                ignore_eos=params.ignore_eos,
                min_tokens=params.min_tokens,
                logprobs=params.logprobs,
                prompt_logprobs=params.prompt_logprobs,
                logit_bias=params.logit_bias or None,
                # For a grammar, a special token is its name; without it, the text would not follow the grammar.
                skip_special_tokens=params.skip_special_tokens and params.grammar is None,
                spaces_between_special_tokens=False,
                output_kind=RequestOutputKind.DELTA,
                structured_outputs=None if params.grammar is None else structured_outputs(params.grammar),
            )
        except (VLLMClientError, ValueError) as error:
            raise _refusal(error) from error

    def _keyed(self, prompt: Prompt) -> Prompt:
        """A prompt that shares cached keys only with those whose rotary base was raised as often."""
        if self._trained_tokens is None:
            return prompt
        raises = num_raises(len(prompt.token_ids), self._trained_tokens)
        return structs.replace(prompt, cache_salt=f"{prompt.cache_salt or ''} {raises}")

    def _require_positions(self, prompt: Prompt, max_tokens: int) -> None:
        """Refuse a prompt whose videos last so long that its positions run out; in other prompts they cannot."""
        if self._time_ids_per_s is None or not any(item.modality == "video" for item in prompt.media):
            return
        spans = [MediaSpan(item.offset, Grid(*item.grid), item.slice_s) for item in prompt.media]
        positions, _ = mrope_positions(len(prompt.token_ids), spans, self._time_ids_per_s)
        max_model_len = self._engine.model_config.max_model_len
        if int(positions.max()) + 1 + max_tokens > num_positions(max_model_len, self._time_ids_per_s):
            raise RequestRefusedError(
                f"The videos of this request last too long together; the model supports {MAX_VIDEO_S} seconds.",
                param="messages",
                code="request_limit_exceeded",
            )

    async def _retire(self, paths: list[str], *, answered: bool) -> None:
        """Close a request's media files once no step can read them any more, and count the encoded items."""
        try:
            # Workers answer after every step scheduled so far, and an aborted request is not scheduled again.
            num_encoded = max(await self._engine.collective_rpc("take_encoded", args=(paths,)))
            if answered:
                self._stats.count_media(len(paths), num_encoded)
        except EngineDeadError:
            _log.info("the engine was lost before it released %d media items", len(paths))
        finally:
            self._files.close(paths)


def _inputs(prompt: Prompt, paths: list[str]) -> Any:
    """A prompt as vLLM's input that needs no further processing."""
    if not prompt.media:
        return tokens_input(prompt.token_ids, cache_salt=prompt.cache_salt)
    items: dict[str, list[Any]] = {}
    hashes: dict[str, list[str]] = {}
    ranges: dict[str, list[PlaceholderRange]] = {}
    for item, path in zip(prompt.media, paths, strict=True):
        items.setdefault(item.modality, []).append(media_item(path, Grid(*item.grid), item.slice_s))
        hashes.setdefault(item.modality, []).append(item.digest)
        ranges.setdefault(item.modality, []).append(PlaceholderRange(offset=item.offset, length=item.num_tokens))
    return mm_input(prompt.token_ids, MultiModalKwargsItems(items), hashes, ranges, cache_salt=prompt.cache_salt)


def _deltas(output: RequestOutput, params: SamplingParams) -> Iterator[Delta]:
    for choice in output.outputs:
        if choice.finish_reason not in (None, "stop", "length"):
            raise RequestFailedError(f"the engine gave up on this request ({choice.finish_reason})")
        yield Delta(
            index=choice.index,
            text=choice.text,
            token_ids=list(choice.token_ids),
            logprobs=None if params.logprobs is None else _logprobs(choice, params.logprobs),
            prompt_logprobs=_prompt_logprobs(output, params.prompt_logprobs),
            finish_reason=choice.finish_reason,
            stop_string=choice.stop_reason if isinstance(choice.stop_reason, str) else None,
            num_cached_tokens=output.num_cached_tokens or 0,
        )


def _logprobs(choice: CompletionOutput, num_top: int) -> list[PositionLogprobs]:
    """Log-probabilities per position; vLLM's dictionaries hold the sampled token and the `num_top` most likely ones."""
    return [
        _position(token_id, alternatives, num_top)
        for token_id, alternatives in zip(choice.token_ids, choice.logprobs or [], strict=True)
    ]


def _prompt_logprobs(output: RequestOutput, num_top: int | None) -> list[PositionLogprobs] | None:
    """Log-probabilities of the prompt where vLLM reports them: once, with nothing for the first token."""
    if num_top is None or not output.prompt_logprobs or output.prompt_token_ids is None:
        return None
    tokens = zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True)
    return [_position(token_id, alternatives, num_top) for token_id, alternatives in tokens]


def _position(token_id: int, alternatives: Any, num_top: int) -> PositionLogprobs:
    ranked = sorted((item for item in alternatives.items() if item[1].rank <= num_top), key=lambda i: i[1].rank)
    top = [TokenLogprob(other, value.logprob) for other, value in ranked]
    return PositionLogprobs(TokenLogprob(token_id, alternatives[token_id].logprob), top)


def _refusal(error: Exception) -> RequestRefusedError:
    message = str(error.args[0]) if error.args else str(error)
    return RequestRefusedError(message, param=getattr(error, "parameter", None), code="invalid_value")
