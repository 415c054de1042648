from collections.abc import Iterator
from importlib.metadata import version
from typing import get_args

import msgspec
from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from service.executor.base import ExecutorStatus, ModelState
from service.response_cache.statistics import CacheNumbers


class Readings(Collector):
    def __init__(self) -> None:
        self._taken: tuple[str, ExecutorStatus, CacheNumbers] | None = None

    def take(self, model_id: str, status: ExecutorStatus, cache: CacheNumbers) -> None:
        self._taken = model_id, status, cache

    def collect(self) -> Iterator[Metric]:
        if self._taken is None:  # a collector's names are read at its registration
            return
        model_id, status, cache = self._taken
        about = {"version": version("anyclaude"), "model": model_id}
        yield InfoMetricFamily("anyclaude", "The server's version and its model.", about)
        yield from _engine(status)
        yield from _tokens(status)
        yield from _response_cache(cache)


def _engine(status: ExecutorStatus) -> Iterator[Metric]:
    state = Gauge("anyclaude_engine_state", "1 for the engine's state, as in /health.", labels=["state"])
    for name in get_args(ModelState):
        state.add_metric([name], float(status.state == name))
    yield state
    yield Gauge("anyclaude_sequences_running", "Sequences that generate now.", status.running)
    yield Gauge("anyclaude_sequences_waiting", "Sequences that wait for a place.", status.waiting)
    yield Counter("anyclaude_engine_restarts", "Rebuilt engines and replaced threads.", status.engine_restarts)
    if status.memory_bytes is not None:
        yield Gauge("anyclaude_engine_memory_bytes", "Memory that MLX holds.", status.memory_bytes)
    if status.prefix_cache_bytes is not None:
        yield Gauge("anyclaude_prefix_cache_bytes", "Prefix cache in memory.", status.prefix_cache_bytes)


def _tokens(status: ExecutorStatus) -> Iterator[Metric]:
    answers, drafts, states = msgspec.structs.asdict(status.tool_calls), status.drafts, status.states
    yield Counter("anyclaude_generated_tokens", "Tokens generated, counted at once.", status.generated_tokens)
    yield Counter("anyclaude_read_tokens", "Prompt tokens read, counted at once.", status.read_tokens)
    yield Counter("anyclaude_tool_calls", "Whole tool calls.", answers.pop("calls"))
    faults = Counter("anyclaude_answer_faults", "Faults in answers, named as in /stats.", labels=["fault"])
    for fault, number in answers.items():
        faults.add_metric([fault], number)
    yield faults
    yield Counter("anyclaude_prefix_cache_turns", "Turns whose state went into the prefix cache.", states.turns)
    yield Counter("anyclaude_prefix_cache_kept_bytes", "Bytes of state that these turns left.", states.kept_bytes)
    yield Counter("anyclaude_drafted_tokens", "Tokens guessed by speculative decoding.", drafts.drafted)
    yield Counter(
        "anyclaude_accepted_draft_tokens",
        "Guessed tokens that were right: each saved the model a step.",
        drafts.accepted,
    )


def _response_cache(cache: CacheNumbers) -> Iterator[Metric]:
    outcomes = Counter(
        "anyclaude_response_cache_requests",
        "Accepted requests by what the response cache did: a collapsed one joined a generation in flight.",
        labels=["outcome"],
    )
    outcomes.add_metric(["hit"], cache.hits - cache.collapsed)
    outcomes.add_metric(["collapsed"], cache.collapsed)
    outcomes.add_metric(["miss"], cache.misses)
    outcomes.add_metric(["bypass"], cache.bypassed)
    yield outcomes
    yield Gauge("anyclaude_response_cache_items", "Answers that the response cache keeps.", cache.cached_items)
    yield Counter("anyclaude_response_cache_stored", "Answers written to the store.", cache.stored)
    yield Counter("anyclaude_response_cache_shed", "Answers too large or too late for the store or a tier.", cache.shed)
    yield Counter(
        "anyclaude_response_cache_store_failures",
        "Calls of the store, or of one of its tiers, that raised or hung; none cost an answer.",
        cache.store_failures,
    )
