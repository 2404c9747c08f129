"""Prometheus metrics of the server: counters, histograms, and the current load of engine and media workers.

Label values come from fixed sets only: route templates, HTTP methods, status classes, error codes, stages, engine
states, and the names that the operator gave to keys. Anything a client can choose (model names, paths) is never a
label, nor is a key.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from model_executor.engine import EngineState, EngineStats, ReplicaStats
from server.core.errors import ApiError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_SHORT_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_LONG_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144)


MediaStage = Literal["fetch", "queue", "header", "decode"]
"""Fetching the bytes; waiting for a worker; reading the header; decoding, resizing and cutting patches. Each media item
waits for a worker twice; one that is in the cache needs only the first stage."""


@dataclass(frozen=True, slots=True)
class StageLoad:
    """The work of one stage since the start."""

    num: int = 0
    """Times it was run, with or without success."""
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class CacheLoad:
    """Use of the cache of prepared media."""

    num_hits: int = 0
    """Media items that needed no decoding: they were ready, or being prepared for another request."""
    num_misses: int = 0
    num_evictions: int = 0
    """Entries removed to free memory."""
    idle_bytes: int = 0
    """Size of the patches that no request uses at the moment."""


@dataclass(frozen=True, slots=True)
class MediaLoad:
    """Current load of the media workers, the cache and the shared memory."""

    num_waiting: int
    """Jobs that wait for a worker."""
    num_running: int
    """Jobs that a worker is running."""
    num_restarts: int
    """Workers replaced since the start because a job failed, was canceled or timed out."""
    shared_bytes: int
    """Shared memory in use: encoded media, and patches of requests that have not ended."""
    cache: CacheLoad = CacheLoad()
    stages: Mapping[MediaStage, StageLoad] = field(
        default_factory=lambda: {stage: StageLoad() for stage in get_args(MediaStage)}
    )


_ENGINE_COUNTERS = (
    ("steps", "num_steps", "Engine steps computed."),
    ("preemptions", "num_preemptions", "Sequences preempted for lack of KV blocks."),
    ("prompt_tokens", "prompt_tokens", "Prompt tokens computed or read from the prefix cache."),
    ("generation_tokens", "generation_tokens", "Generated tokens."),
    ("prefix_cache_queries", "prefix_cache_queries", "Prompt tokens looked up in the prefix cache."),
    ("prefix_cache_hits", "prefix_cache_hits", "Prompt tokens found in the prefix cache."),
    ("encoder_cache_queries", "encoder_cache_queries", "Media items looked up in the encoder cache."),
    ("encoder_cache_hits", "encoder_cache_hits", "Media items found in the encoder cache."),
)
"""Name, attribute of `EngineStats` and description of each counter."""


class Files(Protocol):
    """The uploaded files."""

    @property
    def num_files(self) -> int:
        """Number of files of all tenants."""

    @property
    def num_bytes(self) -> int:
        """Total size of all tenants' files."""


class Metrics:
    """The server's own metrics, and the latest values of engine and media workers."""

    def __init__(self, *, shows_keys: bool = True) -> None:
        """Create a separate registry, so that several servers fit into one process.

        Args:
            shows_keys: whether measurements of single keys are exposed; without, any key may read the rest.
        """
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it unannotated
        self.registry = registry = CollectorRegistry()
        self.requests_in_flight = Gauge("tessera_http_requests_in_flight", "Requests in progress.", registry=registry)
        self._requests = Counter(
            "tessera_http_requests", "Completed requests.", ["route", "method", "status"], registry=registry
        )
        self._request_s = Histogram(
            "tessera_http_request_seconds",
            "Time from request to last byte.",
            ["route"],
            buckets=_LONG_S,
            registry=registry,
        )
        self._errors = Counter(
            "tessera_errors", "Errors sent, as a response or in a stream.", ["status", "kind"], registry=registry
        )
        self._refused_connections = Counter(
            "tessera_connections_refused",
            "Connections closed by the server for what they sent.",
            ["reason"],
            registry=registry,
        )
        self.stage_s = Histogram(
            "tessera_stage_seconds",
            "Time before the engine gets a request: media (fetch, queue, decode) and prompt (render, encode).",
            ["stage"],
            buckets=_LONG_S,
            registry=registry,
        )
        self.first_token_s = Histogram(
            "tessera_time_to_first_token_seconds",
            "Time from request to first token.",
            buckets=_LONG_S,
            registry=registry,
        )
        self.inter_token_s = Histogram(
            "tessera_inter_token_seconds", "Time per token after the first.", buckets=_SHORT_S, registry=registry
        )
        self.answer_s = Histogram(
            "tessera_answer_seconds", "Time from request to last token.", buckets=_LONG_S, registry=registry
        )
        self.prompt_tokens = Histogram(
            "tessera_request_prompt_tokens", "Prompt tokens per request.", buckets=_TOKENS, registry=registry
        )
        self.answer_tokens = Histogram(
            "tessera_request_generation_tokens", "Generated tokens per request.", buckets=_TOKENS, registry=registry
        )
        self.media_tokens = Counter(
            "tessera_media_tokens", "Prompt tokens of prepared media.", ["modality"], registry=registry
        )
        of_keys = registry if shows_keys else None
        self._key_requests = Counter(
            "tessera_key_requests", "Requests per API key.", ["key", "status"], registry=of_keys
        )
        self.key_tokens = Counter(
            "tessera_key_tokens", "Tokens computed per API key.", ["key", "kind"], registry=of_keys
        )
        self.key_refusals = Counter(
            "tessera_key_refusals",
            "Requests rejected because an API key has reached a limit.",
            ["key", "limit"],
            registry=of_keys,
        )
        self.loop_lag_s = Histogram(
            "tessera_event_loop_lag_seconds",
            "Delay between the planned and the actual time of a timer: how long the event loop was blocked.",
            buckets=_SHORT_S,
            registry=registry,
        )
        self._current_load = _CurrentLoad()
        registry.register(self._current_load)

    def add_server(self, name: str) -> None:
        """Add the server's name, of several."""
        info = Gauge("tessera_server_info", "1, with the server's name.", ["server"], registry=self.registry)
        info.labels(name).set(1)

    def add_files(self, files: Files) -> None:
        """Add gauges of the uploaded files, read anew for every scrape."""
        for name, text, read in (
            ("tessera_files", "Uploaded files.", lambda: files.num_files),
            ("tessera_files_bytes", "Total size of all uploaded files.", lambda: files.num_bytes),
        ):
            Gauge(name, text, registry=self.registry).set_function(read)

    def count_request(self, route: str, method: str, status: int, duration_s: float) -> None:
        """Count one completed request; `route` is a template, `status` is counted by its class."""
        known_method = method if method in _METHODS else "other"
        self._requests.labels(route, known_method, f"{status // 100}xx").inc()
        self._request_s.labels(route).observe(duration_s)

    def count_error(self, error: ApiError) -> None:
        """Count one error by its status and its code, or its type if it has no code."""
        self._errors.labels(error.status, error.code or error.type).inc()

    def count_refused_connection(self, reason: str) -> None:
        """Count one connection that was closed for a reason of `server/connection.py`."""
        self._refused_connections.labels(reason).inc()

    def count_key_request(self, name: str, status: int) -> None:
        """Count one completed request of the key with that name."""
        self._key_requests.labels(name, f"{status // 100}xx").inc()

    def render(self, state: EngineState, stats: EngineStats | None, load: MediaLoad | None) -> bytes:
        """All metrics in Prometheus' text format.

        Args:
            state: the engine's state.
            stats: the engine's statistics; None if they are not available.
            load: of the media workers; None if they have not started.
        """
        self._current_load.state, self._current_load.stats, self._current_load.load = state, stats, load
        return generate_latest(self.registry)


class _CurrentLoad:
    """Metrics of engine and media workers, as read for this scrape; absent while they are not available."""

    def __init__(self) -> None:
        self.state = EngineState.LOADING
        self.stats: EngineStats | None = None
        self.load: MediaLoad | None = None

    def collect(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("tessera_engine_state", "1 for the engine's current state.", labels=["state"])
        for state in EngineState:
            states.add_metric([state.value], float(state is self.state))
        yield states
        if self.load is not None:
            yield from _media_metrics(self.load)
        if self.stats is not None:
            yield from _engine_metrics(self.stats)


def _media_metrics(now: MediaLoad) -> Iterator[Metric]:
    yield GaugeMetricFamily("tessera_media_jobs_running", "Media jobs in progress.", now.num_running)
    yield GaugeMetricFamily("tessera_media_jobs_waiting", "Media jobs waiting for a worker.", now.num_waiting)
    yield GaugeMetricFamily("tessera_media_shared_bytes", "Shared memory used by requests.", now.shared_bytes)
    yield CounterMetricFamily("tessera_media_worker_restarts", "Media workers replaced.", now.num_restarts)
    stages = SummaryMetricFamily(
        "tessera_media_stage_seconds", "Time to prepare one image or video, by stage.", labels=["stage"]
    )
    for stage, load in now.stages.items():
        stages.add_metric([stage], load.num, load.total_s)
    yield stages
    cache = now.cache
    yield GaugeMetricFamily("tessera_media_cache_bytes", "Shared memory kept for later requests.", cache.idle_bytes)
    yield CounterMetricFamily("tessera_media_cache_hits", "Media items that needed no decoding.", cache.num_hits)
    yield CounterMetricFamily("tessera_media_cache_misses", "Media items that had to be decoded.", cache.num_misses)
    yield CounterMetricFamily(
        "tessera_media_cache_evictions", "Media items removed from the cache to free memory.", cache.num_evictions
    )


def _engine_metrics(now: EngineStats) -> Iterator[Metric]:
    if now.replicas:
        yield from _replica_metrics(now.replicas)
    yield GaugeMetricFamily("tessera_requests_running", "Sequences being generated.", now.num_running)
    yield GaugeMetricFamily("tessera_requests_waiting", "Requests in the engine's queue.", now.num_waiting)
    yield GaugeMetricFamily("tessera_kv_cache_usage", "Fraction of KV blocks in use, 0 to 1.", now.kv_cache_usage)
    yield GaugeMetricFamily(
        "tessera_engine_standby", "Engine processes that wait to replace a lost one.", now.num_standby
    )
    for name, attribute, text in _ENGINE_COUNTERS:
        yield CounterMetricFamily(f"tessera_{name}", text, getattr(now, attribute))


def _replica_metrics(replicas: Sequence[ReplicaStats]) -> Iterator[Metric]:
    """The parts of several engines, by their number."""
    states = GaugeMetricFamily(
        "tessera_replica_state", "1 for the current state of one of several engines.", labels=["replica", "state"]
    )
    running = GaugeMetricFamily("tessera_replica_requests_running", "Sequences of one engine.", labels=["replica"])
    waiting = GaugeMetricFamily("tessera_replica_requests_waiting", "Requests in one's queue.", labels=["replica"])
    for number, replica in enumerate(replicas):
        for state in EngineState:
            states.add_metric([str(number), state.value], float(state is replica.state))
        running.add_metric([str(number)], replica.stats.num_running)
        waiting.add_metric([str(number)], replica.stats.num_waiting)
    yield from (states, running, waiting)
    for name, attribute, text in _ENGINE_COUNTERS:
        counters = CounterMetricFamily(f"tessera_replica_{name}", f"Of one engine: {text}", labels=["replica"])
        for number, replica in enumerate(replicas):
            counters.add_metric([str(number)], getattr(replica.stats, attribute))
        yield counters
