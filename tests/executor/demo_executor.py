"""The executor around the demo model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from service.executor.mlx_executor import MlxExecutor
from service.profile import ModelProfile
from service.settings import Settings


@asynccontextmanager
async def demo_executor(path: Path, home: Path, **settings: Any) -> AsyncIterator[MlxExecutor]:
    profile = ModelProfile(id="demo", fingerprint="demo", context_length=8192)
    executor = MlxExecutor(path, profile, Settings(home=home, **settings))
    await executor.start()
    try:
        yield executor
    finally:
        await executor.aclose()
