"""Serves an engine that fails on a signal: SIGUSR1 makes its next step raise, SIGUSR2 ends its thread.

`python -m benchmarks.faulty_server PORT MODEL` serves the model folder MODEL without caches.
"""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

from service.app import create_app
from service.executor.mlx_executor import MlxExecutor
from service.executor.runtime import Loader, Runtime, load_runtime
from service.executor.scheduling.protocols import Engine, Token
from service.models.profile import read_profile
from service.profile import ModelProfile
from service.server.server import bind, serve
from service.settings import Settings


class Fault:
    """`on_signal` arms the fault; the next step of any engine raises it once."""

    def __init__(self) -> None:
        self._error: BaseException | None = None

    def on_signal(self, number: int, _: Any) -> None:
        self._error = RuntimeError("injected") if number == signal.SIGUSR1 else SystemExit("killed")

    def strike(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


class FaultyEngine:
    def __init__(self, engine: Engine, fault: Fault) -> None:
        self._engine = engine
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self) -> list[Token]:
        self._fault.strike()
        return self._engine.step()


def faulty(load: Loader, fault: Fault) -> Loader:
    def load_faulty(path: Path, profile: ModelProfile, settings: Settings) -> Runtime:
        runtime = load(path, profile, settings)
        return Runtime(
            engine=FaultyEngine(runtime.engine, fault),
            renderer=runtime.renderer,
            open_writer=runtime.open_writer,
            logits=runtime.logits,
            device=runtime.device,
            tally=runtime.tally,
        )

    return load_faulty


def main(port: str, model: str) -> None:
    fault, path = Fault(), Path(model)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, fault.on_signal)
    settings = Settings(
        home=Path("home"), port=int(port), cache_policy="off", prefix_memory_bytes=0, prefix_disk_bytes=0
    )
    executor = MlxExecutor(
        path, read_profile(path, settings, home=settings.home), settings, load=faulty(load_runtime, fault)
    )
    asyncio.run(serve(create_app(settings, executor=executor), settings, bind(settings)))


if __name__ == "__main__":
    main(*sys.argv[1:])
