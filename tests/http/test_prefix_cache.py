"""`GET /prefix-cache`: what the prefix caches hold, without loading a model for it."""

import json
from pathlib import Path

import msgspec
import pytest

from service.app import create_app
from service.endpoints.prefix_cache import MOST_BRANCHES
from service.executor.base import ExecutorStatus
from service.executor.process.engine_process import EngineProcess
from service.executor.scripted import ScriptedExecutor
from service.own_python import OWN_FOLDER
from service.queries import PrefixBranch
from tests.executor.engines import until
from tests.executor.process.engines import spec
from tests.serving import RawRequest, running, settings

BRANCH = PrefixBranch(depth=0, start=0, end=9, prompts=1, memory_tokens=9, memory_bytes=90, disk_tokens=0, disk_bytes=0)


async def test_branches_are_bounded_and_need_a_key(tmp_path: Path) -> None:
    executor = ScriptedExecutor()
    executor.prefixes = [BRANCH] * (MOST_BRANCHES + 1)
    app = create_app(settings(tmp_path, require_api_key=True, api_key="open-sesame"), executor=executor)
    refused = RawRequest("/prefix-cache", method="GET")
    await refused.run(app)
    assert refused.status == 401
    request = RawRequest("/prefix-cache", method="GET", headers={"x-api-key": "open-sesame"})
    await request.run(app)
    (model,) = json.loads(request.body)["models"]
    assert model["branches"] == [msgspec.structs.asdict(BRANCH)] * MOST_BRANCHES
    assert (model["model"], model["complete"], model["detail"]) == ("scripted", False, "")


async def test_a_model_that_is_not_loaded_stays_so(tmp_path: Path) -> None:
    executor = ScriptedExecutor()
    executor.state = ExecutorStatus(state="healthy", unloaded=True)
    executor.prefixes = [BRANCH]
    request = RawRequest("/prefix-cache", method="GET")
    await request.run(create_app(settings(tmp_path), executor=executor))
    assert json.loads(request.body)["models"] == [
        {"model": "scripted", "branches": [], "complete": True, "detail": "The model is not loaded."}
    ]


async def test_the_engine_process_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(OWN_FOLDER))
    configured = settings(tmp_path)
    engine = EngineProcess(spec("counting", configured))
    app = create_app(configured, executor=engine)
    async with running(app, configured):
        await until(lambda: engine.status().loaded)
        request = RawRequest("/prefix-cache", method="GET")
        await request.run(app)
    (model,) = json.loads(request.body)["models"]
    assert (model["branches"], model["detail"]) == ([], "")
