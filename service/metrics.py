"""`GET /metrics`: what Prometheus is told. Counters move as requests end; everything else is read when it scrapes.

Where OpenTelemetry's conventions for generative AI servers have a name, it is that name in Prometheus' spelling, with
their labels and at least their buckets (semantic-conventions-genai, docs/gen-ai/gen-ai-metrics.md).
"""

from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from service.executor.base import Executor, ModelState
from service.http.request_log import RequestRecord
from service.response_cache.statistics import CacheCounters, CacheStatistics

# Hits take less than the conventions' first bucket of 10 ms, long answers more than their last of 81.92 s.
_DURATION_BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
    *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 655.36, 2621.44),
)
_FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(30.0, 60.0, 120.0, 300.0),
)
_OUTPUT_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_GENERATED = frozenset({"miss", "bypass"})
_STATES: tuple[ModelState, ...] = ("loading", "ready", "stalled", "failed")

SeriesKey = tuple[str, int, str | None, bool, str]


class _Series:
    """The series that one kind of request moves, looked up by label once."""

    __slots__ = ("cached", "completion", "duration", "prompt", "requests")

    def __init__(self, metrics: "Metrics", key: SeriesKey) -> None:
        dialect, status, cache, stream, error = key
        outcome = cache or "none"
        self.requests = metrics.requests.labels(
            dialect, str(status) if status else "none", outcome, str(stream).lower(), error
        )
        self.duration = metrics.duration.labels(*metrics.gen_ai_labels, outcome, error)
        self.prompt = metrics.prompt_tokens.labels(outcome)
        self.completion = metrics.completion_tokens.labels(outcome)
        self.cached = metrics.cached_tokens.labels(outcome)


class Metrics:
    """One app's metrics, in a registry of their own. `observe` is called with every finished request.

    A request is labelled with the status that its client saw ("none" if it left before), with what the response cache
    did ("none" if it was refused before), and with the error that ended it ("" if none did).
    """

    def __init__(
        self,
        executor: Executor,
        counters: CacheCounters,
        statistics: Callable[[], Awaitable[CacheStatistics]],
    ) -> None:
        self._statistics = statistics
        self._series: dict[SeriesKey, _Series] = {}
        self._registry = registry = CollectorRegistry()
        self.gen_ai_labels = ("chat", "anyclaude", executor.profile.id)
        gen_ai = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
        self.requests = Counter(
            "anyclaude_requests",
            "Requests for a generation, by how they ended.",
            ("dialect", "status", "outcome", "stream", "error"),
            registry=registry,
        )
        self.duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "Time from a request's arrival to the last byte of its answer.",
            (*gen_ai, "outcome", "error_type"),
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self._first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From a request's arrival to its first token, waiting included. Of streamed generations that went well.",
            gen_ai,
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=registry,
        ).labels(*self.gen_ai_labels)
        self._output_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time for each token after the first. Of streamed generations that went well.",
            gen_ai,
            buckets=_OUTPUT_TOKEN_BUCKETS,
            registry=registry,
        ).labels(*self.gen_ai_labels)
        self.prompt_tokens = Counter(
            "anyclaude_prompt_tokens", "Tokens of answered prompts.", ("outcome",), registry=registry
        )
        self.completion_tokens = Counter(
            "anyclaude_completion_tokens",
            "Tokens of answers. Those of the outcomes hit and collapsed were not generated again.",
            ("outcome",),
            registry=registry,
        )
        self.cached_tokens = Counter(
            "anyclaude_prefix_cached_tokens",
            "Prompt tokens that the prefix cache held when the answer was generated.",
            ("outcome",),
            registry=registry,
        )
        self._items = Gauge(
            "anyclaude_response_cache_items", "Answers that the response cache keeps.", registry=registry
        )
        registry.register(_Readings(executor, counters))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def observe(self, record: RequestRecord) -> None:
        """On the path of a hit: a look-up and a handful of additions, no label is resolved twice."""
        key = (record.dialect, record.status, record.outcome, record.stream, record.error_code)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series(self, key)
        series.requests.inc()
        series.duration.observe(record.total_seconds)
        usage = record.usage
        if usage is None:
            return
        series.prompt.inc(usage.prompt_tokens)
        series.completion.inc(usage.completion_tokens)
        if usage.cached_tokens:
            series.cached.inc(usage.cached_tokens)
        first = record.first_event_seconds
        if first is not None and record.outcome in _GENERATED and not record.error_code:
            self._first_token.observe(first)
            if usage.completion_tokens > 1:
                self._output_token.observe((record.total_seconds - first) / (usage.completion_tokens - 1))

    async def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type: OpenMetrics for those whose `Accept` asks for it."""
        self._items.set((await self._statistics()).cached_items)
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Readings(Collector):
    """What others count already, read at the scrape."""

    def __init__(self, executor: Executor, counters: CacheCounters) -> None:
        self._executor = executor
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        yield from self._of_the_engine()
        yield from self._of_the_response_cache()

    def _of_the_engine(self) -> Iterator[Metric]:
        status, profile = self._executor.status(), self._executor.profile
        about = {"version": version("anyclaude"), "model": profile.id}
        yield InfoMetricFamily("anyclaude", "The server's version and its model.", about)
        state = GaugeMetricFamily("anyclaude_engine_state", "1 for the state the engine is in.", labels=["state"])
        for name in _STATES:
            state.add_metric([name], float(status.state == name))
        yield state
        yield _gauge("anyclaude_sequences_running", "Sequences that generate now.", status.running)
        yield _gauge("anyclaude_sequences_waiting", "Sequences that wait for a place.", status.waiting)
        yield _counter("anyclaude_engine_restarts", "How often the engine was rebuilt.", status.engine_restarts)
        yield _counter(
            "anyclaude_tool_call_repairs",
            "Repairs made in the JSON of tool calls that the model wrote.",
            status.tool_call_repairs,
        )
        losses = CounterMetricFamily(
            "anyclaude_tool_call_faults",
            "Calls that broke off, could not be read or named no tool on offer (all three stayed text), or do not fit "
            "their tool's schema.",
            labels=["fault"],
        )
        losses.add_metric(["cut"], status.tool_calls_cut)
        losses.add_metric(["broken"], status.tool_calls_broken)
        losses.add_metric(["unknown_tool"], status.tool_calls_unknown)
        losses.add_metric(["schema"], status.tool_calls_mismatched)
        yield losses
        if status.memory_bytes is not None:
            yield _gauge("anyclaude_engine_memory_bytes", "Memory that MLX holds.", status.memory_bytes)
        if status.prefix_cache_bytes is not None:
            yield _gauge("anyclaude_prefix_cache_bytes", "Prefix cache in memory.", status.prefix_cache_bytes)

    def _of_the_response_cache(self) -> Iterator[Metric]:
        counters = self._counters
        outcomes = CounterMetricFamily(
            "anyclaude_response_cache_requests",
            "Requests by what the response cache did: a collapsed one joined a generation in flight.",
            labels=["outcome"],
        )
        outcomes.add_metric(["hit"], counters.hits - counters.collapsed)
        outcomes.add_metric(["collapsed"], counters.collapsed)
        outcomes.add_metric(["miss"], counters.misses)
        outcomes.add_metric(["bypass"], counters.bypassed)
        yield outcomes
        yield _counter("anyclaude_response_cache_stored", "Answers written to the store.", counters.stored)
        yield _counter(
            "anyclaude_response_cache_store_failures",
            "Calls of the store that raised or hung; none cost an answer.",
            counters.store_failures,
        )


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value)


def _counter(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(name, documentation, value)
