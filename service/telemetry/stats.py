"""What `GET /stats` tells: for the dashboard, for `anyclaude stats`, and for programs of others."""

from typing import Any

import msgspec

from service.tallies import CallTally, DraftTally
from service.telemetry.activity import Latency, RecentRequest, Timeline


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    context_length: int
    fingerprint: str


class CacheNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """Of the response cache, since the start. `collapsed` are among the hits."""

    hits: int
    misses: int
    total_requests: int
    hit_rate: str
    cached_items: int
    collapsed: int
    bypassed: int
    stored: int
    store_failures: int


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
    """`process_bytes` is resident, now (None where the system does not tell), `peak_bytes` its highest so far."""

    process_bytes: int | None
    peak_bytes: int
    engine_bytes: int | None
    prefix_cache_bytes: int | None


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    bounds_seconds: tuple[float, ...]
    hit: Latency
    miss: Latency


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """`now` is in Unix seconds. `settings` are by their key in `.anyclauderc.json`, without secrets."""

    now: float
    uptime_seconds: float
    version: str
    status: str
    detail: str
    model: ServedModel
    cache: CacheNumbers
    engine: EngineNumbers
    memory: Memory
    timeline: Timeline
    latency: Latencies
    recent: list[RecentRequest]
    settings: dict[str, Any]
