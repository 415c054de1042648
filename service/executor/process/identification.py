import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from service.executor.process.call_messages import EngineSpec
from service.models.errors import InvalidModel
from service.models.fingerprint import fingerprint

# Completes the profile of a spec. Raises `InvalidModel`.
Identify = Callable[[EngineSpec], Awaitable[EngineSpec]]


async def with_fingerprint(spec: EngineSpec) -> EngineSpec:
    """Reads all weights unless their digests are kept. Raises `InvalidModel`."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[EngineSpec] = loop.create_future()

    def settle(result: EngineSpec | InvalidModel) -> None:
        if found.done():  # cancelled
            return
        if isinstance(result, InvalidModel):
            found.set_exception(result)
        else:
            found.set_result(result)

    def work() -> None:
        result = _read(spec)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result)

    # Python waits for the threads of `asyncio.to_thread` before it ends, here perhaps for minutes.
    threading.Thread(target=work, name="fingerprint", daemon=True).start()
    return await found


class SharedTask:
    """Concurrent calls of `wait` share one run of `work`, which must not raise."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None

    async def wait(self) -> None:
        """Returns when the run has ended or is cancelled."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())
        await asyncio.wait({self._task})  # a cancelled caller does not cancel it

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _read(spec: EngineSpec) -> EngineSpec | InvalidModel:
    adapter = spec.settings.adapter
    try:
        found = fingerprint(Path(spec.model_path), spec.settings.home, None if adapter is None else Path(adapter))
    except InvalidModel as exc:
        return exc
    except Exception as exc:  # else requests would wait for ever
        return InvalidModel(f"The model's files cannot be read: {exc!r}.")
    return replace(spec, profile=replace(spec.profile, fingerprint=found))
