import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from service.device.card import read_engines_device
from service.device.figures import DeviceFigures
from service.device.memory import usable_bytes
from service.errors import NotReady
from service.executor.base import RETRY_AFTER_SECONDS
from service.executor.process.engine_process import EngineProcess

log = logging.getLogger(__name__)

CHECKS_PER_IDLE_TIME = 4

# What an engine process takes before it checks its own room: measured 90 MiB on Linux; on a card, CUDA's context takes
# some hundred MiB (not measured).
PROCESS_BYTES = 512 * 1024**2


class Residency:
    """The least recently used engine is unloaded for one that does not fit, unless it has calls or is `pinned`.
    Loads that all fit run side by side. Everything fits if memory is unknown."""

    def __init__(
        self,
        engines: list[EngineProcess],
        pinned: set[EngineProcess],
        *,
        idle_seconds: float | None = None,
        read_device: Callable[[], DeviceFigures] = read_engines_device,
    ) -> None:
        self._engines = engines
        self._pinned = pinned
        self._idle_seconds = idle_seconds
        self._read_device = read_device
        # One decision at a time, because each changes the memory that the next one finds.
        self._deciding = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        for engine in engines:
            engine.wanted = partial(self._begin_load, engine)

    async def start(self) -> None:
        """Loads the first engine and the pinned ones, but does not wait for them."""
        await self._engines[0].load()
        work = [self._load_pinned(engine) for engine in self._engines if engine in self._pinned]
        if self._idle_seconds is not None:
            work.append(self._sweep(self._idle_seconds))
        self._tasks = [asyncio.get_running_loop().create_task(each) for each in work]

    async def load(self, engine: EngineProcess) -> None:
        """Raises `NotReady` if the engine does not fit, cannot be loaded, or is unloaded meanwhile."""
        await self._begin_load(engine)
        await engine.until_loaded()

    async def unload(self, engine: EngineProcess) -> None:
        """Ends a load, with all calls that wait for it. Pinned engines are unloaded too. Raises `NotReady` while the
        engine answers."""
        if engine.busy and not engine.loading:
            raise NotReady(f"{engine.profile.id} is answering.", retry_after=RETRY_AFTER_SECONDS)
        await engine.unload()  # without the lock, whose holder may wait for the end of this load

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(engine.aclose() for engine in self._engines))

    async def _load_pinned(self, engine: EngineProcess) -> None:
        try:
            await self._begin_load(engine)
        except NotReady as exc:
            log.error("A pinned model is not loaded: %s", exc)

    async def _begin_load(self, engine: EngineProcess) -> None:
        """Concurrent calls share one load."""
        while True:
            async with self._deciding:
                if engine.takes_calls:
                    return
                awaited = await self._make_room(engine)
                if awaited is None:
                    await engine.load()
                    return
            await awaited()  # without the lock, so that an engine that fits does not wait

    async def _make_room(self, engine: EngineProcess) -> Callable[[], Awaitable[object]] | None:
        """Returns what to await before the next try, None if the engine may be loaded."""
        if engine.ending:  # it still has memory
            return engine.until_away
        needed = _needed_bytes(engine)
        while (usable := usable_bytes(self._read_device())) is not None:
            others = [other for other in self._engines if other is not engine and other.resident]
            loading = [other for other in others if other.loading]
            # A part of what they need is no longer free. If this counts too much, the figure afterwards is exact.
            if needed + sum(map(_needed_bytes, loading)) <= usable or not others:
                return None  # loading itself knows better whether a lone engine fits
            if loading:
                return loading[0].settled.wait
            if ending := [other for other in others if other.ending]:
                return ending[0].until_away
            idle = [other for other in others if self._may_unload(other)]
            if not idle:
                raise NotReady(
                    f"{engine.profile.id} needs {needed / 2**30:.1f} GiB of memory, {usable / 2**30:.1f} GiB are free, "
                    f"and {', '.join(other.profile.id for other in others)} cannot be unloaded now. Try again later.",
                    retry_after=RETRY_AFTER_SECONDS,
                )
            oldest = min(idle, key=lambda other: other.used_at)
            log.info("%s is unloaded to make room for %s", oldest.profile.id, engine.profile.id)
            await oldest.unload()
        return None

    async def _sweep(self, idle_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(idle_seconds / CHECKS_PER_IDLE_TIME)
            for engine in self._engines:
                async with self._deciding:
                    if self._may_unload(engine) and loop.time() - engine.used_at >= idle_seconds:
                        log.info("%s is unloaded: it was not used for %g s", engine.profile.id, idle_seconds)
                        await engine.unload()

    def _may_unload(self, engine: EngineProcess) -> bool:
        return engine.resident and not (engine.busy or engine.loading or engine in self._pinned)


def _needed_bytes(engine: EngineProcess) -> int:
    needs = engine.spec.needs
    loaded = msgspec.structs.replace(needs, weight_bytes=max(needs.weight_bytes, engine.loaded_bytes))
    return loaded.least_bytes + PROCESS_BYTES
