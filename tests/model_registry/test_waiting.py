"""Requests over HTTP for a model that is not loaded yet."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

from service.app import Service, create_app
from service.executor.process.engine_process import EngineProcess
from service.settings import Settings
from tests.executor.engines import until
from tests.model_registry.test_residency import engine
from tests.serving import RawRequest, settings

KEEP_ALIVE = b": keep-alive"


def ask(text: str, *, stream: bool = True) -> RawRequest:
    body: dict[str, Any] = {"model": "second", "messages": [{"role": "user", "content": text}], "max_tokens": 3}
    return RawRequest("/v1/chat/completions", json.dumps(body | {"stream": stream}).encode())


class TwoModels:
    """`second` is loaded once the file `gate` is there."""

    def __init__(self, tmp_path: Path) -> None:
        self.gate = tmp_path / "gate"
        self.second = engine("second", load_after=str(self.gate))
        self.settings: Settings = settings(tmp_path, keep_alive_interval_seconds=0.05)
        self.app: Service = create_app(
            self.settings, executor=EngineProcess(engine("first").spec), others={"second": self.second}
        )

    async def answer(self, request: RawRequest) -> RawRequest:
        await request.run(self.app)
        return request


async def test_all_who_wait_for_a_load_are_kept_alive_and_share_it(tmp_path: Path) -> None:
    models = TwoModels(tmp_path)
    async with models.app.router.lifespan_context(models.app):
        streams = [ask(f"question {number}") for number in range(4)]
        whole = ask("another", stream=False)
        tasks = [asyncio.create_task(request.run(models.app)) for request in [*streams, whole]]
        for request in streams:
            await request.until(KEEP_ALIVE)
        await until(lambda: models.second.pid is not None)
        pid = models.second.pid
        assert (models.second.status().waiting, whole.sent) == (5, [])
        models.gate.touch()
        await asyncio.gather(*tasks)
        assert all(b'"content":"3 "' in request.body and b"[DONE]" in request.body for request in streams)
        assert json.loads(whole.body)["choices"][0]["message"]["content"] == "1 2 3 "
        assert (models.second.pid, models.second.status().engine_restarts) == (pid, 0)


async def test_health_gives_the_reason_of_a_death_while_the_model_is_loaded_again(tmp_path: Path) -> None:
    models = TwoModels(tmp_path)
    models.gate.touch()
    async with models.app.router.lifespan_context(models.app):
        await models.answer(ask("one"))
        models.gate.unlink()
        assert models.second.pid is not None
        os.kill(models.second.pid, signal.SIGKILL)
        await until(lambda: models.second.status().engine_restarts == 1)
        health = json.loads((await models.answer(RawRequest("/health", method="GET"))).body)
        second = next(model for model in health["models"] if model["name"] == "second")
        assert (second["status"], second["model_loaded"]) == ("loading", False)
        assert second["detail"] == "loading second again. The engine process has ended: it was killed by SIGKILL"
        models.gate.touch()
        await models.answer(ask("two"))
        health = json.loads((await models.answer(RawRequest("/health", method="GET"))).body)
        assert [model["status"] for model in health["models"]] == ["healthy", "healthy"]


async def test_hits_are_served_while_the_model_is_away_and_while_it_loads(tmp_path: Path) -> None:
    models = TwoModels(tmp_path)
    models.gate.touch()
    async with models.app.router.lifespan_context(models.app):
        await models.answer(ask("known"))
        models.gate.unlink()
        unloaded = await models.answer(RawRequest("/v1/models/second/unload"))
        assert (unloaded.status, models.second.resident) == (200, False)
        assert (await models.answer(ask("known"))).headers["cache-status"] == "anyclaude; hit"
        assert not models.second.resident
        new = ask("new")
        waiting = asyncio.create_task(new.run(models.app))
        await new.until(KEEP_ALIVE)
        await until(lambda: models.second.status().state == "loading")
        assert (await models.answer(ask("known"))).headers["cache-status"] == "anyclaude; hit"
        models.gate.touch()
        await waiting
        assert b"[DONE]" in new.body
