"""The service with an engine that can be made to fail: SIGUSR2 makes its next step raise. `engine-PORT.pid` has the id
of its process.

`python -m benchmarks.faulty_server PORT MODEL` serves the model folder MODEL with no cache.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from service.app import create_app
from service.executor.mlx_executor import MlxExecutor
from service.executor.process.call_messages import EngineSpec
from service.executor.process.engine_process import EngineProcess
from service.executor.runtime import Loader, Runtime, load_runtime
from service.executor.scheduling.protocols import Engine, Token
from service.models.profile import read_profile
from service.profile import ModelProfile
from service.server.server import bind, serve
from service.settings import Settings


class Fault:
    """`on_signal` arms it; the next step sets it off, once."""

    def __init__(self) -> None:
        self._armed = False

    def on_signal(self, number: int, _: Any) -> None:
        self._armed = True

    def strike(self) -> None:
        armed, self._armed = self._armed, False
        if armed:
            raise RuntimeError("injected")


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
        return msgspec.structs.replace(runtime, engine=FaultyEngine(runtime.engine, fault))

    return load_faulty


def open_faulty(spec: EngineSpec) -> MlxExecutor:
    """Runs in the engine process."""
    fault = Fault()
    signal.signal(signal.SIGUSR2, fault.on_signal)
    pid_file(spec.settings.port).write_text(str(os.getpid()))
    return MlxExecutor(Path(spec.model_path), spec.profile, spec.settings, load=faulty(load_runtime, fault))


def pid_file(port: int) -> Path:
    return Path(f"engine-{port}.pid")


def main(port: str, model: str) -> None:
    settings = Settings(
        home=Path("home"), port=int(port), cache_policy="off", prefix_memory_bytes=0, prefix_disk_bytes=0
    )
    profile = read_profile(Path(model), settings, home=settings.home)
    factory = "benchmarks.faulty_server:open_faulty"
    spec = EngineSpec(factory=factory, profile=profile, settings=settings, model_path=model)
    asyncio.run(serve(create_app(settings, executor=EngineProcess(spec)), settings, bind(settings)))


if __name__ == "__main__":
    main(*sys.argv[1:])
