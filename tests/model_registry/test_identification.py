"""A server whose model's fingerprint is not known yet, or changes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from service.app import create_app
from service.executor.process.call_messages import EngineSpec
from service.executor.process.engine_process import EngineProcess
from service.models.errors import InvalidModel
from tests.executor.engines import until
from tests.model_registry.test_residency import engine
from tests.model_registry.test_waiting import KEEP_ALIVE
from tests.serving import RawRequest, settings

HIT = "anyclaude; hit"


def unidentified(name: str = "first", **options: Any) -> EngineSpec:
    spec = engine(name, **options).spec
    return replace(spec, profile=replace(spec.profile, fingerprint=""))


class SlowReading:
    """Ends once `done` is set, with `failure` if there is one, else with `fingerprint`."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.failure: InvalidModel | None = None
        self.fingerprint = "1"
        self.begun = 0

    async def __call__(self, spec: EngineSpec) -> EngineSpec:
        self.begun += 1
        await self.done.wait()
        if self.failure is not None:
            raise self.failure
        return replace(spec, profile=replace(spec.profile, fingerprint=self.fingerprint))


class Server:
    def __init__(self, tmp_path: Path, spec: EngineSpec | None = None) -> None:
        self.reading = SlowReading()
        self.engine = EngineProcess(spec or unidentified(), identify=self.reading)
        self.app = create_app(
            settings(tmp_path, cache=f"disk:{tmp_path}/cache", keep_alive_interval_seconds=0.05),
            executor=self.engine,
        )

    async def get(self, path: str) -> Any:
        request = RawRequest(path, method="GET")
        request.receive_body(b"")
        await request.run(self.app)
        return json.loads(request.body)

    def ask(self, text: str, *, stream: bool) -> tuple[RawRequest, "asyncio.Task[None]"]:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 3, "stream": stream}
        request = RawRequest("/v1/chat/completions", json.dumps(body).encode())
        return request, asyncio.create_task(request.run(self.app))

    async def answer(self, text: str) -> tuple[str, bool]:
        """The text, and whether it is a hit."""
        request, asking = self.ask(text, stream=False)
        await asking
        content: str = json.loads(request.body)["choices"][0]["message"]["content"]
        return content, request.headers["cache-status"] == HIT

    async def until_doubted(self) -> None:
        await until(lambda: not self.engine.profile.fingerprint)


@asynccontextmanager
async def serving(tmp_path: Path, **options: Any) -> AsyncIterator[Server]:
    """Its model is loaded."""
    server = Server(tmp_path, unidentified(**options))
    server.reading.done.set()
    async with server.app.router.lifespan_context(server.app):
        await until(lambda: server.engine.status().state == "healthy")
        yield server


async def test_the_server_answers_before_it_knows_the_fingerprint(tmp_path: Path) -> None:
    server = Server(tmp_path)
    async with server.app.router.lifespan_context(server.app):
        health = await server.get("/health")
        assert (health["status"], health["model"], health["model_loaded"]) == ("loading", "first", False)
        assert [model["status"] for model in (await server.get("/v1/models"))["data"]] == ["loading"]
        stream, streaming = server.ask("a question", stream=True)
        whole, waiting = server.ask("a question", stream=False)
        await stream.until(KEEP_ALIVE)
        assert (server.reading.begun, server.engine.pid, whole.sent) == (1, None, [])
        server.reading.done.set()
        await asyncio.gather(streaming, waiting)
        assert b'"content":"3 "' in stream.body
        assert b"[DONE]" in stream.body
        assert json.loads(whole.body)["choices"][0]["message"]["content"] == "1 2 3 "
        again, asking = server.ask("a question", stream=False)
        await asking
        assert again.headers["cache-status"] == HIT
        assert server.engine.spec.profile.fingerprint == "1"


async def test_hits_are_served_once_the_fingerprint_is_known_while_the_model_loads(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    earlier = Server(tmp_path)
    earlier.reading.done.set()
    async with earlier.app.router.lifespan_context(earlier.app):
        _, asking = earlier.ask("known", stream=False)
        await asking
    gate.unlink()
    server = Server(tmp_path, unidentified(load_after=str(gate)))
    async with server.app.router.lifespan_context(server.app):
        whole, asking = server.ask("known", stream=False)
        stream, streaming = server.ask("known", stream=True)
        await stream.until(KEEP_ALIVE)
        server.reading.done.set()
        await asyncio.gather(asking, streaming)
        assert whole.headers["cache-status"] == HIT
        assert b'"content":"1 2 3 "' in stream.body
        assert server.engine.status().state == "loading"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_meanwhile_is_not_answered(stream: bool, tmp_path: Path) -> None:
    server = Server(tmp_path)
    async with server.app.router.lifespan_context(server.app):
        request, asking = server.ask("a question", stream=stream)
        if stream:
            await request.until(KEEP_ALIVE)
        await until(lambda: server.engine.status().waiting == 1)
        request.disconnect()
        await asking
        await until(lambda: server.engine.status().waiting == 0)
        server.reading.done.set()
        await until(lambda: server.engine.status().state == "healthy")
        assert server.engine.status().generated_tokens == 0
        other, asking = server.ask("another", stream=False)
        await asking
        assert other.status == 200


async def test_files_that_cannot_be_read_are_a_load_that_fails(tmp_path: Path) -> None:
    server = Server(tmp_path)
    async with server.app.router.lifespan_context(server.app):
        stream, streaming = server.ask("a question", stream=True)
        whole, waiting = server.ask("a question", stream=False)
        await stream.until(KEEP_ALIVE)
        server.reading.failure = InvalidModel("a file is damaged")
        server.reading.done.set()
        await asyncio.gather(streaming, waiting)
        assert b"a file is damaged" in stream.body
        assert (whole.status, b"a file is damaged" in whole.body) == (503, True)
        health = await server.get("/health")
        assert (health["status"], health["detail"]) == ("unhealthy", "a file is damaged")


async def test_requests_do_not_wait_for_ever_for_files_that_are_never_read(tmp_path: Path) -> None:
    server = Server(tmp_path, unidentified(patience=0.3))
    async with server.app.router.lifespan_context(server.app):
        stream, streaming = server.ask("a question", stream=True)
        whole, waiting = server.ask("a question", stream=False)
        await asyncio.gather(streaming, waiting)
        assert KEEP_ALIVE in stream.body
        assert b'"error":' in stream.body
        assert b"first was not ready within 0.3 seconds" in stream.body
        assert (whole.status, b"first was not ready within 0.3 seconds" in whole.body) == (503, True)


async def test_a_server_stops_while_the_files_are_read(tmp_path: Path) -> None:
    server = Server(tmp_path)
    async with server.app.router.lifespan_context(server.app):
        whole, waiting = server.ask("a question", stream=False)
        await until(lambda: server.engine.status().waiting == 1)
        await server.engine.aclose()
        await waiting
        assert whole.status == 503


async def test_a_folder_that_is_gone_fails_as_a_load(tmp_path: Path) -> None:
    lost = EngineProcess(replace(unidentified(), model_path=str(tmp_path / "gone")))
    await lost.load()
    await lost.settled.wait()
    assert lost.status().state == "unhealthy"
    assert "A file of the model cannot be read" in lost.status().detail
    await lost.aclose()


async def test_a_changed_model_that_is_loaded_again_has_other_keys(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert [await server.answer("known") for _ in range(2)] == [("1 2 3 ", False), ("1 2 3 ", True)]
        server.reading.fingerprint = "2"
        assert await server.answer("known") == ("1 2 3 ", True), "the model that was read is still in memory"
        await server.engine.unload()
        await server.engine.load()
        assert [await server.answer("known") for _ in range(2)] == [("1 2 3 ", False), ("1 2 3 ", True)]
        assert server.engine.spec.profile.fingerprint == "2"


async def test_a_hit_without_the_model_notices_that_its_files_have_changed(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.answer("known")
        await server.engine.unload()
        await server.until_doubted()
        assert await server.answer("known") == ("1 2 3 ", True)
        server.reading.fingerprint = "2"
        await server.until_doubted()
        assert not server.engine.resident
        assert await server.answer("known") == ("1 2 3 ", False)


async def test_a_folder_that_cannot_be_read_for_a_while_loses_no_hits(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.answer("known")
        await server.engine.unload()
        await server.until_doubted()
        server.reading.failure = InvalidModel("the disk is away")
        refused, asking = server.ask("known", stream=False)
        await asking
        assert (refused.status, b"the disk is away" in refused.body) == (503, True)
        server.reading.failure = None
        assert await server.answer("known") == ("1 2 3 ", True)


async def test_an_answer_of_a_changed_model_is_not_stored_under_the_old_key(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.engine.unload()
        server.reading.fingerprint = "2"  # not noticed before the load
        assert await server.answer("new") == ("1 2 3 ", False)
        server.reading.fingerprint = "1"
        await server.engine.unload()
        await server.until_doubted()
        assert await server.answer("new") == ("1 2 3 ", False)


async def test_files_that_change_while_they_are_loaded_are_loaded_again(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    async with serving(tmp_path, load_after=str(gate)) as server:
        await server.engine.unload()
        gate.unlink()
        await server.engine.load()
        await until(lambda: server.engine.pid is not None)
        server.reading.fingerprint = "2"
        gate.touch()
        assert await server.answer("new") == ("1 2 3 ", False)
        assert (server.engine.spec.profile.fingerprint, server.engine.status().engine_restarts) == ("2", 1)
