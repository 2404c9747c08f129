"""What the server counts and measures, in Prometheus' terms, on a registry of its own.

Labels come from fixed sets only: route templates, HTTP methods, status classes, kinds of errors, stages, engine states,
and the names the operator gave to keys. Whatever a client can make up (model names, paths) is never a label, nor is
a key.
"""

from collections.abc import Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from model_executor.engine import EngineState, EngineStats
from server.core.errors import ApiError
from server.media.preprocessor import MediaLoad

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_SHORT_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_LONG_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144)


class Files(Protocol):
    """What is uploaded."""

    @property
    def num_files(self) -> int:
        """Files of all tenants."""

    @property
    def num_bytes(self) -> int:
        """Their size."""


class Metrics:
    """The server's own measurements, and the last readings of engine and media."""

    def __init__(self, *, shows_keys: bool = True) -> None:
        """A registry of its own, so that several servers fit into one process.

        Args:
            shows_keys: whether what is measured of single keys is shown; all keys may read it otherwise.
        """
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it unannotated
        self.registry = registry = CollectorRegistry()
        self.requests_in_flight = Gauge(
            "tessera_http_requests_in_flight", "Requests being answered.", registry=registry
        )
        self._requests = Counter(
            "tessera_http_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._request_s = Histogram(
            "tessera_http_request_seconds", "Request to last byte.", ["route"], buckets=_LONG_S, registry=registry
        )
        self._errors = Counter(
            "tessera_errors", "Errors answered, as a response or in a stream.", ["status", "kind"], registry=registry
        )
        self._refused_connections = Counter(
            "tessera_connections_refused",
            "Connections closed by the server for what they sent.",
            ["reason"],
            registry=registry,
        )
        self.stage_s = Histogram(
            "tessera_stage_seconds",
            "Work before the engine gets a request: media (fetch, queue, decode) and prompt (render, encode).",
            ["stage"],
            buckets=_LONG_S,
            registry=registry,
        )
        self.first_token_s = Histogram(
            "tessera_time_to_first_token_seconds", "Request to first token.", buckets=_LONG_S, registry=registry
        )
        self.inter_token_s = Histogram(
            "tessera_inter_token_seconds", "Time per token after the first.", buckets=_SHORT_S, registry=registry
        )
        self.answer_s = Histogram(
            "tessera_answer_seconds", "Request to last token.", buckets=_LONG_S, registry=registry
        )
        self.prompt_tokens = Histogram(
            "tessera_request_prompt_tokens", "Prompt tokens of a request.", buckets=_TOKENS, registry=registry
        )
        self.answer_tokens = Histogram(
            "tessera_request_generation_tokens", "Tokens generated for a request.", buckets=_TOKENS, registry=registry
        )
        self.media_tokens = Counter(
            "tessera_media_tokens", "Prompt tokens of prepared media.", ["modality"], registry=registry
        )
        of_keys = registry if shows_keys else None
        self._key_requests = Counter(
            "tessera_key_requests", "Requests of an API key.", ["key", "status"], registry=of_keys
        )
        self.key_tokens = Counter(
            "tessera_key_tokens", "Tokens computed for an API key.", ["key", "kind"], registry=of_keys
        )
        self.key_refusals = Counter(
            "tessera_key_refusals", "Requests over a limit of an API key.", ["key", "limit"], registry=of_keys
        )
        self.loop_lag_s = Histogram(
            "tessera_event_loop_lag_seconds",
            "How much later than planned the event loop got to something planned; large where it was held.",
            buckets=_SHORT_S,
            registry=registry,
        )
        self._readings = _Readings()
        registry.register(self._readings)

    def follow_files(self, files: Files) -> None:
        """Show how much is uploaded, read anew for every scrape."""
        for name, text, read in (
            ("tessera_files", "Uploaded files.", lambda: files.num_files),
            ("tessera_files_bytes", "Size of all uploaded files.", lambda: files.num_bytes),
        ):
            Gauge(name, text, registry=self.registry).set_function(read)

    def count_request(self, route: str, method: str, status: int, duration_s: float) -> None:
        """Count one answered request; `route` is a template, `status` is counted by its class."""
        known_method = method if method in _METHODS else "other"
        self._requests.labels(route, known_method, f"{status // 100}xx").inc()
        self._request_s.labels(route).observe(duration_s)

    def count_error(self, error: ApiError) -> None:
        """Count one error by its status and its code, or its type where it has none."""
        self._errors.labels(error.status, error.code or error.type).inc()

    def count_refused_connection(self, reason: str) -> None:
        """Count one connection that was closed for a reason of `server/connection.py`."""
        self._refused_connections.labels(reason).inc()

    def count_key_request(self, name: str, status: int) -> None:
        """Count one answered request of the key of that name."""
        self._key_requests.labels(name, f"{status // 100}xx").inc()

    def render(self, state: EngineState, stats: EngineStats | None, load: MediaLoad | None) -> bytes:
        """Everything in Prometheus' text format.

        Args:
            state: where the engine is in its life.
            stats: a reading of the engine; None where it cannot be had.
            load: a reading of the media side; None where there is none yet.
        """
        self._readings.state, self._readings.stats, self._readings.load = state, stats, load
        return generate_latest(self.registry)


class _Readings:
    """Gauges and counters of engine and media, as read for this scrape; absent while they cannot be asked."""

    def __init__(self) -> None:
        self.state = EngineState.LOADING
        self.stats: EngineStats | None = None
        self.load: MediaLoad | None = None

    def collect(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("tessera_engine_state", "1 for the state the engine is in.", labels=["state"])
        for state in EngineState:
            states.add_metric([state.value], float(state is self.state))
        yield states
        if self.load is not None:
            yield from _media_metrics(self.load)
        if self.stats is not None:
            yield from _engine_metrics(self.stats)


def _media_metrics(now: MediaLoad) -> Iterator[Metric]:
    yield GaugeMetricFamily("tessera_media_jobs_running", "Media being decoded.", now.num_running)
    yield GaugeMetricFamily("tessera_media_jobs_waiting", "Media waiting for a worker.", now.num_waiting)
    yield GaugeMetricFamily("tessera_media_shared_bytes", "Shared memory held by requests.", now.shared_bytes)
    yield CounterMetricFamily("tessera_media_worker_restarts", "Media workers replaced.", now.num_restarts)
    stages = SummaryMetricFamily("tessera_media_stage_seconds", "Preparing one medium, by stage.", labels=["stage"])
    for stage, load in now.stages.items():
        stages.add_metric([stage], load.num, load.total_s)
    yield stages
    cache = now.cache
    yield GaugeMetricFamily("tessera_media_cache_bytes", "Shared memory kept for later requests.", cache.idle_bytes)
    yield CounterMetricFamily("tessera_media_cache_hits", "Media that cost no decoding.", cache.num_hits)
    yield CounterMetricFamily("tessera_media_cache_misses", "Media that had to be decoded.", cache.num_misses)
    yield CounterMetricFamily("tessera_media_cache_evictions", "Media given up for memory.", cache.num_evictions)


def _engine_metrics(now: EngineStats) -> Iterator[Metric]:
    yield GaugeMetricFamily("tessera_requests_running", "Sequences being generated.", now.num_running)
    yield GaugeMetricFamily("tessera_requests_waiting", "Requests waiting for a place.", now.num_waiting)
    yield GaugeMetricFamily("tessera_kv_cache_usage", "Share of KV blocks in use, 0 to 1.", now.kv_cache_usage)
    yield GaugeMetricFamily("tessera_engine_standby", "Engine processes that wait to take over.", now.num_standby)
    for name, text, value in (
        ("steps", "Engine steps computed.", now.num_steps),
        ("preemptions", "Sequences put back for want of KV blocks.", now.num_preemptions),
        ("prompt_tokens", "Prompt tokens computed or taken from the cache.", now.prompt_tokens),
        ("generation_tokens", "Tokens generated.", now.generation_tokens),
        ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", now.prefix_cache_queries),
        ("prefix_cache_hits", "Prompt tokens found in the prefix cache.", now.prefix_cache_hits),
        ("encoder_cache_queries", "Media looked up in the encoder cache.", now.encoder_cache_queries),
        ("encoder_cache_hits", "Media found in the encoder cache.", now.encoder_cache_hits),
    ):
        yield CounterMetricFamily(f"tessera_{name}", text, value)
