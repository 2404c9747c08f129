"""The interface between the HTTP server and the engine: the `Engine` protocol, its values, errors and settings.

Everything above this protocol runs without vLLM; everything below runs without HTTP. All values are plain and travel
over the engine process's socket as msgpack. This module imports neither torch nor vllm.

Errors:

    EngineError
    ├── EngineUnavailableError   the model is loading, or its process was lost: try again (`state` says which)
    ├── EngineBusyError          the engine's queue is full: try again soon
    ├── RequestRefusedError      the engine cannot run this request; the client's fault
    └── RequestFailedError       the engine gave up on this request; the server's fault
"""

from collections.abc import AsyncGenerator
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

SHARED_MEMORY = Path("/dev/shm")
"""The file system in memory through which prepared media reach the engine."""

CPU_KV_CACHE_BYTES = 2 << 30
"""Default of `kv_cache_bytes` on a CPU, where vLLM cannot measure how much memory is free for it."""

Modality = Literal["image", "video"]
FinishReason = Literal["stop", "length"]


class EngineState(StrEnum):
    """Lifecycle of the engine process; the HTTP side reports it in `/health` and in 503 responses."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"


class EngineError(Exception):
    """Base of all engine errors; the text contains no path and no address."""


class EngineUnavailableError(EngineError):
    """The engine is not running (yet, or any more); a later request may succeed.

    Args:
        message: what happened, for people.
        state: the engine's state.
    """

    def __init__(self, message: str, state: EngineState) -> None:
        super().__init__(message)
        self.state = state


class EngineBusyError(EngineError):
    """As many requests are running and waiting as the settings allow; the same request may succeed soon."""


class RequestRefusedError(EngineError):
    """This request can never run: the client's fault.

    Args:
        message: what is wrong, for people.
        param: the request field at fault.
        code: an OpenAI error code.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class RequestFailedError(EngineError):
    """The engine gave up on this request; the request is not at fault."""


class MediaItem(msgspec.Struct, frozen=True):
    """One prepared image or video of a prompt.

    The patches are in a file below the server's own shared-memory directory; the owner of the request deletes it when
    the request has ended, so the engine may read it at any time until then (also again, after a preemption).
    """

    modality: Modality
    grid: tuple[int, int, int]
    """(t, h, w) in patches, as `geometry.Grid`."""
    offset: int
    """Index in `Prompt.token_ids` of the first placeholder."""
    num_tokens: int
    """Placeholders in a row from `offset`: t*h*w/4."""
    digest: str
    """Hex digest over content bytes, modality, every decode and resize parameter, and the tenant; it fixes the grid."""
    path: str
    """File of uint8 [P, C*D*14*14], C = 3 channels (RGB, 0..255), D = 1 frame for an image and 2 for a video."""
    slice_s: float = 0.0
    """Seconds from one temporal slice of a video to the next; `digest` fixes it, too."""


class Prompt(msgspec.Struct, frozen=True):
    """A rendered prompt: ids with media placeholders already spliced in."""

    token_ids: list[int]
    media: list[MediaItem] = []
    """In order of `offset`."""
    cache_salt: str | None = None
    """Separates tenants in the prefix cache."""
    adapter: str | None = None
    """Name of the LoRA adapter to compute with; None: the model as it is."""


class Grammar(msgspec.Struct, frozen=True, kw_only=True):
    """A format that every answer must follow; the API layer rejects anything the engine would ignore."""

    kind: Literal["json", "json_object", "regex", "choice", "grammar", "structural_tag"]
    """json: a JSON Schema. json_object: any object. choice: one of several texts. grammar: in GBNF notation.
    structural_tag: free text with tags whose content is constrained, as xgrammar describes it."""
    value: str = ""
    """The schema, the JSON list of choices or the structural tag as text, the expression or the grammar itself."""
    param: str | None = None
    """The request field it comes from, for errors."""


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to sample and when to stop. The API layer checks the ranges; names are vLLM's."""

    max_tokens: int
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: list[str] = []
    stop_token_ids: list[int] = []
    """In addition to the checkpoint's own end tokens, which the engine process adds unless `ignore_eos`."""
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    logprobs: int | None = None
    """Alternatives to report per token (0: only the sampled one); None: no log-probabilities."""
    prompt_logprobs: int | None = None
    """Alternatives to report per token of the prompt, as `logprobs`; such a prompt is computed whole, without the
    prefix cache."""
    logit_bias: dict[int, float] = {}
    skip_special_tokens: bool = True
    grammar: Grammar | None = None
    """The format of the answer, without optional white space; None: free text."""


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token and its natural-log probability."""

    token_id: int
    logprob: float


class PositionLogprobs(msgspec.Struct, frozen=True):
    """One position, generated or of the prompt: the sampled token and the most likely ones, most likely first."""

    sampled: TokenLogprob
    top: list[TokenLogprob]


class Delta(msgspec.Struct, frozen=True):
    """The part of one choice that one engine step generated."""

    index: int
    """Which of the `n` choices."""
    text: str
    """New text; never splits a character; may be empty while a character or a stop string is undecided."""
    token_ids: list[int]
    logprobs: list[PositionLogprobs] | None = None
    """As long as `token_ids`, when requested."""
    finish_reason: FinishReason | None = None
    """Set exactly once per choice, on its last delta."""
    stop_string: str | None = None
    """Which of `SamplingParams.stop` has ended the choice, if one has."""
    prompt_logprobs: list[PositionLogprobs] | None = None
    """Of the prompt's tokens from the second on, when requested; on the first delta of all, and perhaps again later."""
    num_cached_tokens: int = 0
    """Prompt tokens read from the prefix cache (known from the first delta on)."""


class EngineStats(msgspec.Struct, frozen=True):
    """A snapshot of the engine's statistics; counters start at 0 with each engine process."""

    num_running: int = 0
    num_waiting: int = 0
    kv_cache_usage: float = 0.0
    """Share of KV blocks in use, 0..1."""
    num_preemptions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_cache_queries: int = 0
    """Prompt tokens looked up."""
    prefix_cache_hits: int = 0
    encoder_cache_queries: int = 0
    """Media items looked up."""
    encoder_cache_hits: int = 0
    num_steps: int = 0
    """Steps computed."""
    num_standby: int = 0
    """Processes that wait to take over from a lost one; known to the client's side only."""
    replicas: "tuple[ReplicaStats, ...]" = ()
    """Of several engines, each one's part; known to the client's side only."""


class ReplicaStats(msgspec.Struct, frozen=True):
    """One of several engines."""

    state: EngineState
    stats: EngineStats
    """While it is lost, what it had counted before."""


class Engine(Protocol):
    """Generates from prepared prompts. One instance serves any number of requests at the same time."""

    @property
    def state(self) -> EngineState:
        """The engine's state, without waiting."""

    @property
    def failure(self) -> str | None:
        """Why the state is FAILED; None in any other state."""

    @property
    def max_model_len(self) -> int:
        """Context length in tokens, prompt and answer together; known before the engine is ready."""

    def generate(self, request_id: str, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """Stream an answer. Closing the generator (or canceling its consumer) aborts the request in the engine.

        Args:
            request_id: unique among running requests.
            prompt: ids and media, placeholders spliced.
            params: how to sample and when to stop.

        Raises:
            EngineUnavailableError: not ready, or lost while generating.
            EngineBusyError: too many requests are waiting.
            RequestRefusedError: the prompt or the sampling parameters cannot run.
            RequestFailedError: the engine gave up.
        """

    async def stats(self) -> EngineStats:
        """The current statistics.

        Raises:
            EngineUnavailableError: not ready.
        """


class EngineSettings(BaseModel):
    """The `engine` section of the settings, also read by the engine process."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Number format of the computation. auto: bfloat16 on GPUs and on CPUs with native bfloat16, otherwise float32; on
    a CPU, a model trained in float32 is also computed in float32. float16 is not supported: this model overflows in
    it."""
    max_model_len: int | None = Field(default=None, ge=16)
    """Context length in tokens, prompt and answer together. Unset: the checkpoint's."""
    generation_config: Literal["auto", "none"] = "auto"
    """Where sampling values come from that a request leaves open. auto: the checkpoint's `generation_config.json`, then
    the API's defaults. none: the API's defaults."""
    max_num_batched_tokens: int | None = Field(default=None, ge=16)
    """Tokens computed in one engine step; longer prompts are computed in chunks of this size. Unset: 2048 on a CPU;
    vLLM's choice for the card on a GPU."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Maximum number of sequences generated at the same time for one key, or one address if there are no keys; others
    wait. For all together there are an eighth more, so that one key never occupies everything. Unset: 16 on a CPU;
    vLLM's choice for the card on a GPU."""
    max_num_waiting: int = Field(default=64, ge=0)
    """Maximum number of requests waiting in the engine's queue; further requests are rejected with status 429."""
    kv_cache_bytes: int | None = Field(default=None, ge=1)
    """Memory of the paged KV cache in bytes. Unset: 2 GiB on a CPU; what vLLM measures as free on a GPU."""
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    """Number format of the KV cache. auto: that of the computation. fp8: half the memory, on GPUs that support it;
    answers change a little."""
    gpu_memory_share: float | None = Field(default=None, gt=0, le=1)
    """Share of each GPU's memory that weights, buffers and KV cache may take together. Unset: vLLM's, 0.92."""
    eager: bool | None = None
    """Compute as written instead of compiling the model and recording CUDA graphs: starts sooner, generates slower.
    Unset: yes on a CPU, no on a GPU."""
    cuda_graph_sizes: str | None = None
    """Numbers of tokens, separated by commas, for whose steps CUDA graphs are recorded; steps of fewer are padded,
    those of more run without. Unset: 35 sizes up to 2048."""
    process_layout: Literal["auto", "single", "multi"] = "auto"
    """How vLLM's processes are laid out. single: one engine process, forked (fast startup). multi: vLLM's own layout.
    auto: single on a CPU, multi on a GPU."""
    lora_dir: Path | None = None
    """Directory of LoRA adapters in PEFT's format; each subdirectory is served as a model of the same name. Unset: no
    adapters."""
    num_threads: int = Field(default=0, ge=0)
    """CPU threads for the computation. 0: one for a model of less than 64 MiB, which more threads slow down, otherwise
    one per available physical core; vLLM's choice on a GPU."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """Number of GPUs that each layer is split across."""
    pipeline_parallel_size: int = Field(default=1, ge=1)
    """Number of GPUs that the layers are distributed over."""
    replicas: int = Field(default=1, ge=0)
    """Number of engines, each with a copy of the model and limits of its own; requests with the same media go to the
    same one. 0: one for each GPU, or group of GPUs that a model is split across; one on a CPU."""
    start_timeout_s: float = Field(default=1800, gt=0)
    """Maximum time in seconds for loading the model before the start counts as failed."""

    warm_standby: bool = True
    """Keep a second engine process on standby, with its libraries loaded but without a model, to take over when the
    engine is lost; restarts skip the imports. Uses about half a gigabyte of memory."""

    @property
    def num_guest_seqs(self) -> int:
        """Sequences beyond `max_num_seqs`, which must be set, for clients other than one that has that many."""
        assert self.max_num_seqs is not None
        return max(1, self.max_num_seqs // 8)

    @field_validator("cuda_graph_sizes")
    @classmethod
    def _sizes_are_numbers(cls, value: str | None) -> str | None:
        if value is not None and not all(size.strip().isdecimal() and int(size) for size in value.split(",")):
            raise PydanticCustomError("invalid_value", "must be numbers above 0, separated by commas")
        return value

    def runs_single(self, *, cpu: bool) -> bool:
        """Whether the layout is `single`; `cpu` is whether the installed engine is a CPU build."""
        return self.process_layout == "single" or (self.process_layout == "auto" and cpu)
