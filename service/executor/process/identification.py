import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path

from msgspec.structs import replace

from service.executor.process.call_messages import EngineSpec
from service.models.errors import InvalidModel
from service.models.fingerprint import fingerprint

# Completes the profile of a spec. Raises `InvalidModel`.
Identify = Callable[[EngineSpec], Awaitable[EngineSpec]]


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
