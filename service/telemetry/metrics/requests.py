"""Counts of generation requests. Names, labels and buckets follow OpenTelemetry's conventions for generative AI servers
(semantic-conventions-genai, docs/gen-ai/gen-ai-metrics.md)."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.telemetry.request_log import RequestRecord

# Hits take less than the conventions' first bucket (10 ms), long answers more than the last (81.92 s).
_DURATION_BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
    *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 655.36, 2621.44),
)
_FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(30.0, 60.0, 120.0, 300.0),
)
_OUTPUT_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_GEN_AI_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
_GENERATED = frozenset({"miss", "bypass"})

Labels = tuple[str, ...]


class _Distribution:
    """Each count covers values above the previous bound."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Labels) -> None:
        upper = [*(str(bound) for bound in self._bounds), "+Inf"]
        family.add_metric(labels, list(zip(upper, accumulate(self._counts), strict=True)), self._sum)


class _Tokens:
    __slots__ = ("cached", "completion", "prompt")

    def __init__(self) -> None:
        self.prompt = self.completion = self.cached = 0


class _Series:
    __slots__ = ("duration", "labels", "requests", "tokens")

    def __init__(self, labels: Labels, duration: _Distribution, tokens: _Tokens) -> None:
        self.labels = labels
        self.requests = 0
        self.duration = duration
        self.tokens = tokens


class RequestMetrics(Collector):
    """Costs a hit one look-up and a few additions. The client library's counters would take five times as long, so they
    are built at a scrape."""

    def __init__(self, model_id: str) -> None:
        self._gen_ai_labels = ("chat", "anyclaude", model_id)
        self._series: dict[tuple[str, int, str | None, bool, str], _Series] = {}
        self._durations: dict[Labels, _Distribution] = {}
        self._tokens: dict[str, _Tokens] = {}
        self._unread_media = 0
        self._first_token = _Distribution(_FIRST_TOKEN_BUCKETS)
        self._output_token = _Distribution(_OUTPUT_TOKEN_BUCKETS)

    def observe(self, record: RequestRecord) -> None:
        key = (record.dialect, record.status, record.outcome, record.stream, record.error_code)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._new_series(record)
        series.requests += 1
        self._unread_media += record.unread_media
        series.duration.observe(record.total_seconds)
        usage = record.usage
        if usage is None:
            return
        tokens = series.tokens
        tokens.prompt += usage.prompt_tokens
        tokens.completion += usage.completion_tokens
        tokens.cached += usage.cached_tokens
        first = record.first_event_seconds
        if first is not None and record.outcome in _GENERATED and not record.error_code:
            self._first_token.observe(first)
            if usage.completion_tokens > 1:
                self._output_token.observe((record.total_seconds - first) / (usage.completion_tokens - 1))

    def _new_series(self, record: RequestRecord) -> _Series:
        outcome = record.outcome or "none"
        status = str(record.status) if record.status else "none"
        return _Series(
            (record.dialect, status, outcome, str(record.stream).lower(), record.error_code),
            self._durations.setdefault((outcome, record.error_code), _Distribution(_DURATION_BUCKETS)),
            self._tokens.setdefault(outcome, _Tokens()),
        )

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "anyclaude_requests",
            "Requests for a generation, by how they ended.",
            labels=("dialect", "status", "outcome", "stream", "error"),
        )
        for series in self._series.values():
            requests.add_metric(series.labels, series.requests)
        yield requests
        yield CounterMetricFamily(
            "anyclaude_unread_media",
            "Images, documents and audio in requests, which a line of text replaced.",
            self._unread_media,
        )
        yield from self._collect_times()
        yield from self._collect_tokens()

    def _collect_times(self) -> Iterator[Metric]:
        durations = HistogramMetricFamily(
            "gen_ai_server_request_duration_seconds",
            "Time from a request's arrival to the last byte of its answer.",
            labels=(*_GEN_AI_LABELS, "outcome", "error_type"),
        )
        for labels, duration in self._durations.items():
            duration.add_to(durations, (*self._gen_ai_labels, *labels))
        first = HistogramMetricFamily(
            "gen_ai_server_time_to_first_token_seconds",
            "From a request's arrival to its first token, waiting included. Of streamed generations that went well.",
            labels=_GEN_AI_LABELS,
        )
        self._first_token.add_to(first, self._gen_ai_labels)
        output = HistogramMetricFamily(
            "gen_ai_server_time_per_output_token_seconds",
            "Time for each token after the first. Of streamed generations that went well.",
            labels=_GEN_AI_LABELS,
        )
        self._output_token.add_to(output, self._gen_ai_labels)
        yield from (durations, first, output)

    def _collect_tokens(self) -> Iterator[Metric]:
        prompt = CounterMetricFamily("anyclaude_prompt_tokens", "Tokens of answered prompts.", labels=("outcome",))
        completion = CounterMetricFamily(
            "anyclaude_completion_tokens",
            "Tokens of answers. Those of the outcomes hit and collapsed were not generated again.",
            labels=("outcome",),
        )
        cached = CounterMetricFamily(
            "anyclaude_prefix_cached_tokens",
            "Prompt tokens that the prefix cache held when the answer was generated.",
            labels=("outcome",),
        )
        for outcome, tokens in self._tokens.items():
            prompt.add_metric((outcome,), tokens.prompt)
            completion.add_metric((outcome,), tokens.completion)
            cached.add_metric((outcome,), tokens.cached)
        yield from (prompt, completion, cached)
