"""What others count already, read when somebody scrapes."""

from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from service.executor.base import Executor, ModelState
from service.response_cache.statistics import CacheCounters

_STATES: tuple[ModelState, ...] = ("loading", "ready", "stalled", "failed")


class Readings(Collector):
    """Of the engine, and of the response cache."""

    def __init__(self, executor: Executor, counters: CacheCounters) -> None:
        self._executor = executor
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        yield from self._of_the_engine()
        yield from self._of_the_response_cache()

    def _of_the_engine(self) -> Iterator[Metric]:
        status, profile = self._executor.status(), self._executor.profile
        calls, drafts = status.tool_calls, status.drafts
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
            calls.repaired,
        )
        yield _counter("anyclaude_drafted_tokens", "Tokens guessed by speculative decoding.", drafts.drafted)
        yield _counter(
            "anyclaude_accepted_draft_tokens",
            "Guessed tokens that were right: each saved the model a step.",
            drafts.accepted,
        )
        losses = CounterMetricFamily(
            "anyclaude_tool_call_faults",
            "Calls that broke off, could not be read or named no tool on offer (all three stayed text), or do not fit "
            "their tool's schema.",
            labels=["fault"],
        )
        losses.add_metric(["cut"], calls.cut)
        losses.add_metric(["broken"], calls.broken)
        losses.add_metric(["unknown"], calls.unknown)
        losses.add_metric(["mismatched"], calls.mismatched)
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
