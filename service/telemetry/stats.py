from typing import Any

import msgspec

from service.executor.base import ModelState
from service.response_cache.statistics import CacheNumbers
from service.tallies import CallTally, DraftTally, StateTally, Tuning
from service.telemetry.activity import Latency, RecentRequest, RunningRequest
from service.telemetry.speed import Speed
from service.telemetry.timeline import Timeline


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    context_length: int
    fingerprint: str


class ModelNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """`unloaded`: the next request loads it. `managed`: users can load and unload it. `weight_bytes`: the size of its
    files, and of its draft model's."""

    name: str
    status: ModelState
    detail: str
    loaded: bool
    unloaded: bool
    managed: bool
    running: int
    waiting: int
    context_length: int
    weight_bytes: int | None
    memory_bytes: int | None


class EngineNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """The tallies count since the model was loaded, `engine_restarts` since the server's start."""

    running: int
    waiting: int
    max_concurrency: int
    max_queue: int
    engine_restarts: int
    tool_calls: CallTally
    drafts: DraftTally
    states: StateTally = msgspec.field(default_factory=StateTally)
    tuning: Tuning | None = None


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """`process_bytes` is the resident size, None if the system does not report it. `peak_bytes` is its maximum, and
    `engine_peak_bytes` that of MLX's arrays."""

    process_bytes: int | None
    peak_bytes: int
    engine_bytes: int | None
    engine_peak_bytes: int | None = None
    prefix_cache_bytes: int | None


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    bounds_seconds: tuple[float, ...]
    hit: Latency
    miss: Latency


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """`now` is in Unix seconds. `settings` have the keys of `.anyclauderc.json` and no secrets. `unset` gives the
    effective value of each null setting, as a value or in words."""

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
    unread_media: int = 0
    models: list[ModelNumbers] = []
    settings: dict[str, Any]
    unset: dict[str, Any] = {}
