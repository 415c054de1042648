"""`GET /stats`."""

import time
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from service.config.keys import SETTING_KEYS, Key
from service.config.redaction import shown_value
from service.device.machine import own_bytes, peak_bytes
from service.endpoints.context import ServiceContext
from service.executor.base import ExecutorStatus
from service.http.responses import NO_STORE, json_response
from service.model_registry.registry import ModelRegistry
from service.profile import ModelProfile
from service.settings import Settings
from service.telemetry.activity import BOUNDS
from service.telemetry.stats import EngineNumbers, Latencies, Memory, ModelNumbers, ServedModel, Stats


class StatsEndpoint:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._started = time.monotonic()
        self._settings = shown_settings(context.settings)
        self._unset = [key for key in SETTING_KEYS if self._settings[key.dotted] is None]
        self._meanings = {key.dotted: _meaning_of_null(key) for key in self._unset}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = json_response(await self.read(), headers=NO_STORE)
        await response(scope, receive, send)

    async def read(self) -> Stats:
        executor, settings, activity = self._context.executor, self._context.settings, self._context.activity
        cache = await executor.statistics()
        # Nothing is awaited from here on, so all numbers belong to one moment.
        status, profile = executor.status(), executor.profile
        activity.sample(status)
        return Stats(
            now=round(time.time(), 3),
            uptime_seconds=round(time.monotonic() - self._started, 1),
            version=version("anyclaude"),
            status=status.state,
            detail=status.detail,
            model=ServedModel(
                id=profile.id, context_length=status.context_length(profile), fingerprint=profile.fingerprint
            ),
            cache=cache,
            engine=EngineNumbers(
                running=status.running,
                waiting=status.waiting,
                max_concurrency=status.max_concurrency or settings.most_running,
                max_queue=settings.max_queue,
                engine_restarts=status.engine_restarts,
                tool_calls=status.tool_calls,
                drafts=status.drafts,
                states=status.states,
                tuning=status.tuning,
            ),
            memory=_memory(status),
            speed=activity.speed(),
            timeline=activity.timeline(),
            latency=Latencies(bounds_seconds=BOUNDS, hit=activity.latency("hit"), miss=activity.latency("miss")),
            requests=activity.running(),
            recent=activity.recent(),
            unread_media=activity.unread_media,
            models=[_numbers(self._context.registry, name) for name in self._context.registry.executors],
            settings=self._settings,
            unset=self._meanings | _from_profile(self._unset, profile),
        )


def _numbers(registry: ModelRegistry, name: str) -> ModelNumbers:
    executor = registry.executors[name]
    status = executor.status()
    return ModelNumbers(
        name=name,
        status=status.state,
        detail=status.detail,
        loaded=status.loaded,
        unloaded=status.unloaded,
        managed=registry.managed,
        running=status.running,
        waiting=status.waiting,
        context_length=status.context_length(executor.profile),
        weight_bytes=registry.weight_bytes(name),
        memory_bytes=status.memory_bytes,
    )


def shown_settings(settings: Settings) -> dict[str, Any]:
    return {key.dotted: shown_value(key, settings) for key in SETTING_KEYS}


def _meaning_of_null(key: Key) -> str:
    return key.description.partition("Null: ")[2].removesuffix(".") or "none"


def _from_profile(keys: list[Key], profile: ModelProfile) -> dict[str, Any]:
    known: dict[str, Any] = {"model": profile.id, "context_length": profile.context_length}
    known |= {f"sampling.{name}": value for name, value in msgspec.structs.asdict(profile.sampling).items()}
    return {key.dotted: known[key.field] for key in keys if known.get(key.field) is not None}


def _memory(status: ExecutorStatus) -> Memory:
    resident = own_bytes()
    return Memory(
        process_bytes=resident,
        peak_bytes=max(peak_bytes(), resident),  # the two are not of the same moment
        engine_bytes=status.memory_bytes,
        engine_peak_bytes=status.peak_bytes,
        prefix_cache_bytes=status.prefix_cache_bytes,
    )
