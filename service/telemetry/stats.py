"""What `GET /stats` answers: for the dashboard, `anyclaude stats`, and other programs."""

from typing import Any

import msgspec

from service.executor.base import ModelState
from service.response_cache.statistics import CacheNumbers
from service.tallies import CallTally, DraftTally
from service.telemetry.activity import Latency, RecentRequest, RunningRequest
from service.telemetry.speed import Speed
from service.telemetry.timeline import Timeline


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    context_length: int
    fingerprint: str


class EngineNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """Sequences now, and their limits; restarts since the start; the tallies since the model was loaded."""

    running: int
    waiting: int
    max_concurrency: int
    max_queue: int
    engine_restarts: int
    tool_calls: CallTally
    drafts: DraftTally


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """`process_bytes` is resident now, None if the system does not show it; `peak_bytes` is its highest so far."""

    process_bytes: int | None
    peak_bytes: int
    engine_bytes: int | None
    prefix_cache_bytes: int | None


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    bounds_seconds: tuple[float, ...]
    hit: Latency
    miss: Latency


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of everything. `now` is in Unix seconds; `settings` are by their key in `.anyclauderc.json`, without
    secrets; `unset` has what applies in place of each of them that is null, as a value or in words."""

    now: float
    uptime_seconds: float
    version: str
    status: ModelState
    detail: str
    model: ServedModel
    cache: CacheNumbers
    engine: EngineNumbers
    memory: Memory
    speed: Speed
    timeline: Timeline
    latency: Latencies
    requests: list[RunningRequest] = []
    recent: list[RecentRequest]
    settings: dict[str, Any]
    unset: dict[str, Any] = {}
