"""`GET /stats`: everything that the dashboard and `anyclaude stats` show, read at this moment."""

import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.config.keys import SETTING_KEYS
from service.config.redaction import shown_value
from service.endpoints.context import ServiceContext
from service.endpoints.health import HEALTH_OF_STATE
from service.endpoints.json_response import json_response
from service.executor.base import ExecutorStatus
from service.http.access import identify_caller
from service.http.request_headers import read_headers
from service.settings import Settings
from service.telemetry.activity import BOUNDS, Activity
from service.telemetry.stats import CacheNumbers, EngineNumbers, Latencies, Memory, ServedModel, Stats


class StatsEndpoint:
    def __init__(self, context: ServiceContext, activity: Activity) -> None:
        self._context = context
        self._activity = activity
        self._started = time.monotonic()
        self._settings = shown_settings(context.settings)

    async def get(self, request: Request) -> Response:
        identify_caller(read_headers(request.scope), self._context.settings)
        response = json_response(await self.read())
        response.headers["cache-control"] = "no-store"
        return response

    async def read(self) -> Stats:
        executor, settings, activity = self._context.executor, self._context.settings, self._activity
        status, profile = executor.status(), executor.profile
        return Stats(
            now=round(time.time(), 3),
            uptime_seconds=round(time.monotonic() - self._started, 1),
            version=version("anyclaude"),
            status=HEALTH_OF_STATE[status.state],
            detail=status.detail,
            model=ServedModel(id=profile.id, context_length=profile.context_length, fingerprint=profile.fingerprint),
            cache=await self._cache_numbers(),
            engine=EngineNumbers(
                running=status.running,
                waiting=status.waiting,
                max_concurrency=settings.max_concurrency,
                max_queue=settings.max_queue,
                engine_restarts=status.engine_restarts,
                tool_calls=status.tool_calls,
                drafts=status.drafts,
            ),
            memory=_memory(status),
            timeline=activity.timeline(),
            latency=Latencies(bounds_seconds=BOUNDS, hit=activity.latency("hit"), miss=activity.latency("miss")),
            recent=activity.recent(),
            settings=self._settings,
        )

    async def _cache_numbers(self) -> CacheNumbers:
        statistics, counters = await self._context.cache_statistics(), self._context.cache_counters
        return CacheNumbers(
            hits=statistics.hits,
            misses=statistics.misses,
            total_requests=statistics.total_requests,
            hit_rate=statistics.hit_rate,
            cached_items=statistics.cached_items,
            collapsed=counters.collapsed,
            bypassed=counters.bypassed,
            stored=counters.stored,
            store_failures=counters.store_failures,
        )


def shown_settings(settings: Settings) -> dict[str, Any]:
    return {key.dotted: shown_value(key, settings) for key in SETTING_KEYS}


def _memory(status: ExecutorStatus) -> Memory:
    resident = _resident_bytes()
    return Memory(
        process_bytes=resident,
        peak_bytes=max(_peak_bytes(), resident or 0),  # the two are not of the same moment
        engine_bytes=status.memory_bytes,
        prefix_cache_bytes=status.prefix_cache_bytes,
    )


def _resident_bytes() -> int | None:
    """Linux tells it in pages (proc_pid_statm(5)); elsewhere only the peak is known without more libraries."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak_bytes() -> int:
    """getrusage(2) counts in KiB on Linux, and in bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
