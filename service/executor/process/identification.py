import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path

from msgspec.structs import replace

from service.errors import NotReady
from service.executor.process.call_messages import EngineSpec
from service.models.errors import InvalidModel
from service.models.fingerprint import fingerprint

# Files that no process has may change. A request that comes later than this looks at them again: some milliseconds.
TRUST_SECONDS = 1.0

# Completes the profile of a spec. Raises `InvalidModel`.
Identify = Callable[[EngineSpec], Awaitable[EngineSpec]]


class Identification:
    """Keeps the fingerprint of a model's files in `profile`, and in `spec` the last one that was read. While not
    `in_use`, `profile` loses it soon."""

    def __init__(self, spec: EngineSpec, read: Identify, in_use: Callable[[], bool]) -> None:
        self.spec = spec
        self.profile = spec.profile
        self._read = read
        self._in_use = in_use
        self._reading: asyncio.Task[str] | None = None

    async def read(self) -> bool:
        """Concurrent calls share one reading. Returns False if it was cancelled. Raises `NotReady`."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._take())
        reading = self._reading
        await asyncio.wait({reading})  # a cancelled caller does not cancel it
        if reading.cancelled():
            return False
        if wrong := reading.result():
            raise NotReady(wrong)
        return True

    async def changed(self) -> bool:
        try:
            return await self._read(self.spec) != self.spec
        except InvalidModel:  # the next process cannot be started
            return True

    def forget(self) -> None:
        self.profile = replace(self.profile, fingerprint="")

    def forget_soon(self) -> None:
        asyncio.get_running_loop().call_later(TRUST_SECONDS, self._forget_unused)

    def cancel(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    async def _take(self) -> str:
        """Returns what is wrong with the files."""
        try:
            self.spec = await self._read(self.spec)
        except InvalidModel as exc:
            return str(exc)
        self.profile = self.spec.profile
        self.forget_soon()
        return ""

    def _forget_unused(self) -> None:
        if not self._in_use():
            self.forget()


async def with_fingerprint(spec: EngineSpec) -> EngineSpec:
    """Reads all weights unless their digests are kept. A spec without a folder stays as it is. Raises
    `InvalidModel`."""
    if not spec.model_path:
        return spec
    found: Future[EngineSpec] = Future()
    found.set_running_or_notify_cancel()

    def read() -> None:
        try:
            found.set_result(_read(spec))
        except InvalidModel as exc:
            found.set_exception(exc)
        except Exception as exc:  # else requests would wait for ever
            found.set_exception(InvalidModel(f"The model's files cannot be read: {exc!r}."))

    # Python waits for the threads of `asyncio.to_thread` before it ends, here perhaps for minutes.
    threading.Thread(target=read, name="fingerprint", daemon=True).start()
    return await asyncio.wrap_future(found)


def _read(spec: EngineSpec) -> EngineSpec:
    adapter = spec.settings.adapter
    found = fingerprint(Path(spec.model_path), spec.settings.home, None if adapter is None else Path(adapter))
    return replace(spec, profile=replace(spec.profile, fingerprint=found))
