"""`/health` over a real connection while the engine hangs, dies and comes back."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.executor.mlx_executor import MlxExecutor
from service.executor.process.engine_process import EngineProcess
from service.executor.runtime import Loader
from service.executor.scheduling.places import FIRST
from service.executor.scripted import PROFILE
from service.own_python import OWN_FOLDER
from tests.executor.engines import CountingEngine, counting_loader
from tests.executor.process.engines import spec
from tests.patience import PATIENCE_SECONDS
from tests.serving import client_of, running, settings

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
STALL_SECONDS = 1.5


class Gate:
    """Holds the engine up before one of its steps."""

    def __init__(self, at: int) -> None:
        self.opened = threading.Event()
        self._at = at

    def __call__(self, step: int) -> None:
        if step == self._at:
            assert self.opened.wait(PATIENCE_SECONDS)


@asynccontextmanager
async def serving(tmp_path: Path, load: Loader) -> AsyncIterator[httpx.AsyncClient]:
    configured = settings(tmp_path, stall_seconds=STALL_SECONDS)
    app = create_app(configured, executor=MlxExecutor(tmp_path, PROFILE, configured, load=load))
    async with running(app, configured) as url, client_of(url) as client:
        yield client


async def until_health(client: httpx.AsyncClient, status: str) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the body of the first answer with that `status`."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            response = await client.get("/health")
            if response.json()["status"] == status:
                return response.status_code, response.json()
            await asyncio.sleep(0.02)


@pytest.mark.waits
async def test_an_engine_that_hangs_is_degraded_then_unhealthy(tmp_path: Path) -> None:
    gate = Gate(at=3)
    async with serving(tmp_path, counting_loader(CountingEngine(gate))) as client:
        assert (await until_health(client, "healthy"))[0] == 200
        asking = asyncio.create_task(client.post(CHAT, json=BODY))
        code, health = await until_health(client, "degraded")
        assert (code, health["model_loaded"], health["running"]) == (200, True, 1)
        assert health["detail"].startswith("no progress for ")
        code, health = await until_health(client, "unhealthy")
        assert (code, health["model_loaded"]) == (503, False)
        failed = await asking
        assert (failed.status_code, "made no progress" in failed.json()["error"]["message"]) == (500, True)
        gate.opened.set()


@pytest.mark.process
async def test_a_process_that_died_is_loading_until_the_model_is_there_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(OWN_FOLDER))
    configured, once = settings(tmp_path), str(tmp_path / "once")
    engine = EngineProcess(spec("counting", configured, at="reading", how="SIGKILL", once=once, load_seconds=0.3))
    app = create_app(configured, executor=engine)
    async with running(app, configured) as url, client_of(url) as client:
        await until_health(client, "healthy")
        asking = asyncio.create_task(client.post(CHAT, json=BODY))
        code, health = await until_health(client, "loading")
        assert (code, health["model_loaded"], health["waiting"]) == (200, False, 1)
        assert "killed by SIGKILL" in health["detail"]
        code, health = await until_health(client, "healthy")
        assert (code, "killed by SIGKILL" in health["last_end"]) == (200, True)
        assert health["models"][0]["last_end"] == health["last_end"]
        assert (await asking).json()["choices"][0]["message"]["content"] == "1 2 3 "


@pytest.mark.parametrize("reason", ["no such file", "not enough memory"])
async def test_a_model_that_cannot_be_loaded_is_unhealthy_and_says_why(tmp_path: Path, reason: str) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(reason)

    async with serving(tmp_path, fail) as client:
        code, health = await until_health(client, "unhealthy")
        assert (code, health["model_loaded"], reason in health["detail"]) == (503, False, True)
        refused = await client.post(CHAT, json=BODY)
        assert (refused.status_code, reason in refused.json()["error"]["message"]) == (503, True)


@pytest.mark.parametrize(("configured", "shown"), [("auto", FIRST), (3, 3)])
async def test_health_shows_how_many_sequences_may_run(tmp_path: Path, configured: object, shown: int) -> None:
    chosen = settings(tmp_path, max_concurrency=configured)
    executor = MlxExecutor(tmp_path, PROFILE, chosen, load=counting_loader(CountingEngine()))
    async with running(create_app(chosen, executor=executor), chosen) as url, client_of(url) as client:
        _, health = await until_health(client, "healthy")
        assert health["max_concurrency"] == shown
        assert (await client.get("/stats")).json()["engine"]["max_concurrency"] == shown
