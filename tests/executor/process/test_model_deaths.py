"""An engine process with a real model dies at each stage: the next one answers alike, and none is left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from service.errors import AnswerLost
from service.executor.process.call_messages import EngineSpec
from service.executor.process.engine_process import EngineProcess
from service.generation import SamplingParams
from service.models.profile import read_profile
from service.settings import Settings
from tests.executor.engines import until
from tests.executor.process import engines
from tests.executor.process.test_engine_process import ask, is_there, outcome

pytestmark = pytest.mark.model

WAYS = ["SIGKILL", "SIGABRT", "SIGSEGV", "exit"]
STAGES = ["loading", "reading", "decoding", "idle", "closing"]
ALWAYS = set(zip(STAGES, [*WAYS, "SIGKILL"], strict=True))
DEATHS = [
    pytest.param(stage, way, marks=[] if (stage, way) in ALWAYS else pytest.mark.endurance)
    for stage, way in product(STAGES, WAYS)
]
FIELDS: dict[str, Any] = {"max_tokens": 8, "sampling": SamplingParams(temperature=0)}


@asynccontextmanager
async def running(folder: Path, home: Path, **options: Any) -> AsyncIterator[EngineProcess]:
    settings = Settings(home=home, shutdown_grace_seconds=5.0, max_concurrency=1)
    spec = EngineSpec(
        factory=f"{engines.__name__}:{engines.model.__name__}",
        profile=read_profile(folder, settings, home=home),
        settings=settings,
        model_path=str(folder),
        options=options,
    )
    engine = EngineProcess(spec)
    await engine.start()
    try:
        yield engine
    finally:
        pid = engine.pid
        await engine.aclose()
        assert pid is None or not is_there(pid)


@pytest.mark.parametrize(("stage", "way"), DEATHS)
async def test_the_next_process_answers_alike(tiny_model: Path, tmp_path: Path, stage: str, way: str) -> None:
    seen = tmp_path / "seen"
    if stage != "decoding":
        seen.touch()
    options = {"at": stage, "how": way, "once": str(tmp_path / "once"), "seen": str(seen)}
    async with running(tiny_model, tmp_path, **options) as engine:
        if stage == "idle":
            await until(lambda: engine.status().engine_restarts == 1)
        answers = await asyncio.gather(*[outcome(engine, seen=seen, **FIELDS) for _ in range(3)])
        right = await ask(engine, **FIELDS)
        failed = [answer for answer in answers if answer != right]
        if stage == "decoding":  # the first had sent something, the others waited for its place
            assert [type(answer) for answer in failed] == [AnswerLost]
        else:
            assert failed == []
        assert engine.status().engine_restarts == (0 if stage == "closing" else 1)
        if stage == "closing":
            pid = engine.pid
            await engine.unload()
            assert pid is not None
            assert not is_there(pid)
            assert await ask(engine, **FIELDS) == right
